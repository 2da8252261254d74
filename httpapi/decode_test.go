package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/realtime/inventory"
)

// A message that is refused says so with a code and, where there is one, the field.
func TestDecodeRefuses(t *testing.T) {
	const place = `"latitude":24.86,"longitude":67.01`
	deep := strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)
	for name, c := range map[string]struct {
		frame string
		code  dray.Code
		field string
	}{
		"empty":                             {``, dray.CodeBadRequest, ""},
		"not JSON":                          {`{"type":`, dray.CodeBadRequest, ""},
		"an array":                          {`[]`, dray.CodeBadRequest, ""},
		"a number":                          {`1`, dray.CodeBadRequest, ""},
		"null":                              {`null`, dray.CodeBadRequest, "type"},
		"no members":                        {`{}`, dray.CodeBadRequest, "type"},
		"unknown type":                      {`{"type":"fly","id":1}`, dray.CodeBadRequest, "type"},
		"type in other case":                {`{"type":"Position",` + place + `}`, dray.CodeBadRequest, "type"},
		"type is a number":                  {`{"type":1}`, dray.CodeBadRequest, "type"},
		"duplicate type":                    {`{"type":"position","type":"position","driver":"d",` + place + `}`, dray.CodeBadRequest, ""},
		"two types":                         {`{"type":"position","type":"positions","driver":"d",` + place + `}`, dray.CodeBadRequest, ""},
		"duplicate name":                    {`{"type":"position","latitude":1,` + place + `}`, dray.CodeBadRequest, ""},
		"duplicate name by an escape":       {`{"type":"position","l\u0061titude":1,` + place + `}`, dray.CodeBadRequest, ""},
		"duplicate name in what is ignored": {`{"type":"position","x":{"a":1,"a":1},` + place + `}`, dray.CodeBadRequest, ""},
		"duplicate attribute":               {`{"type":"position","attributes":{"a":"1","a":"2"},` + place + `}`, dray.CodeBadRequest, ""},
		"duplicate name beside a batch":     {`{"type":"positions","id":1,"id":1,"positions":[{"driver":"d","driver":"d",` + place + `}]}`, dray.CodeBadRequest, ""},
		"two batches":                       {`{"type":"positions","positions":[{"driver":"d",` + place + `}],"positions":[{"driver":"d",` + place + `}]}`, dray.CodeBadRequest, ""},
		"batch cut short":                   {`{"type":"positions","positions":[{"driver":"d",` + place + `}`, dray.CodeBadRequest, ""},
		"trailing bytes":                    {`{"type":"position","driver":"d",` + place + `}x`, dray.CodeBadRequest, ""},
		"two messages":                      {`{"type":"position","driver":"d",` + place + `}{}`, dray.CodeBadRequest, ""},
		"trailing NUL":                      {`{"type":"position","driver":"d",` + place + "}\x00", dray.CodeBadRequest, ""},
		"trailing comma":                    {`{"type":"position","driver":"d",` + place + `,}`, dray.CodeBadRequest, ""},
		"byte order mark":                   {"\ufeff" + `{"type":"position","driver":"d",` + place + `}`, dray.CodeBadRequest, ""},
		"nested 10,000 deep":                {`{"type":"position","x":` + deep + `,` + place + `}`, dray.CodeBadRequest, ""},
		"nested 33 deep":                    {`{"type":"unsubscribe","id":1,"x":` + deep[10_000-32:10_000+32] + `}`, dray.CodeBadRequest, ""},
		"lone surrogate":                    {`{"type":"position","driver":"\ud800",` + place + `}`, dray.CodeBadRequest, ""},
		"lone surrogate in what is ignored": {`{"type":"position","x":"\udc00",` + place + `}`, dray.CodeBadRequest, ""},
		"control character":                 {"{\"type\":\"position\",\"driver\":\"a\nb\"," + place + `}`, dray.CodeBadRequest, ""},
		"leading zero":                      {`{"type":"position","latitude":01,"longitude":1}`, dray.CodeBadRequest, ""},
		"leading plus":                      {`{"type":"position","latitude":+1,"longitude":1}`, dray.CodeBadRequest, ""},
		"NaN":                               {`{"type":"position","latitude":NaN,"longitude":1}`, dray.CodeBadRequest, ""},
		"Infinity":                          {`{"type":"position","latitude":Infinity,"longitude":1}`, dray.CodeBadRequest, ""},
		"hexadecimal":                       {`{"type":"position","latitude":0x1,"longitude":1}`, dray.CodeBadRequest, ""},

		"id is an object":         {`{"type":"unsubscribe","id":{}}`, dray.CodeBadRequest, "id"},
		"id is true":              {`{"type":"unsubscribe","id":true}`, dray.CodeBadRequest, "id"},
		"id is a fraction":        {`{"type":"unsubscribe","id":1.5}`, dray.CodeBadRequest, "id"},
		"id is a power":           {`{"type":"unsubscribe","id":1e3}`, dray.CodeBadRequest, "id"},
		"id is empty":             {`{"type":"unsubscribe","id":""}`, dray.CodeBadRequest, "id"},
		"id of 65 bytes":          {`{"type":"unsubscribe","id":"` + strings.Repeat("a", 65) + `"}`, dray.CodeBadRequest, "id"},
		"id of 33 letters":        {`{"type":"unsubscribe","id":"` + strings.Repeat("é", 33) + `"}`, dray.CodeBadRequest, "id"},
		"id of 65 digits":         {`{"type":"unsubscribe","id":` + strings.Repeat("1", 65) + `}`, dray.CodeBadRequest, "id"},
		"NUL in an id":            {`{"type":"unsubscribe","id":"a\u0000"}`, dray.CodeBadRequest, "id"},
		"newline in an id":        {`{"type":"unsubscribe","id":"a\nb"}`, dray.CodeBadRequest, "id"},
		"DEL in an id":            {`{"type":"positions","id":"` + "\x7f" + `","positions":[{"driver":"d",` + place + `}]}`, dray.CodeBadRequest, "id"},
		"next line in an id":      {`{"type":"unsubscribe","id":"` + "\u0085" + `"}`, dray.CodeBadRequest, "id"},
		"id missing":              {`{"type":"unsubscribe"}`, dray.CodeBadRequest, "id"},
		"id null":                 {`{"type":"subscribe","id":null,"drivers":["d"]}`, dray.CodeBadRequest, "id"},
		"Id for id":               {`{"type":"unsubscribe","Id":1}`, dray.CodeBadRequest, "id"},
		"reserve without id":      {`{"type":"reserve"}`, dray.CodeBadRequest, "id"},
		"auth without token":      {`{"type":"auth","id":1}`, dray.CodeBadRequest, "token"},
		"auth with null token":    {`{"type":"auth","token":null}`, dray.CodeBadRequest, "token"},
		"offline: driver is 1":    {`{"type":"offline","driver":1}`, dray.CodeBadRequest, "driver"},
		"offline: driver is d{1}": {`{"type":"offline","driver":"d{1}"}`, dray.CodeBadRequest, "driver"},
		"offline: driver empty":   {`{"type":"offline","driver":""}`, dray.CodeBadRequest, "driver"},

		"latitude missing":       {`{"type":"position","longitude":1}`, dray.CodeInvalidPosition, "latitude"},
		"Latitude for latitude":  {`{"type":"position","Latitude":1,"longitude":1}`, dray.CodeInvalidPosition, "latitude"},
		"latitude null":          {`{"type":"position","latitude":null,"longitude":1}`, dray.CodeInvalidPosition, "latitude"},
		"longitude missing":      {`{"type":"position","latitude":1}`, dray.CodeInvalidPosition, "longitude"},
		"longitude a string":     {`{"type":"position","latitude":1,"longitude":"1"}`, dray.CodeInvalidPosition, "longitude"},
		"latitude 1e400":         {`{"type":"position","latitude":1e400,"longitude":1}`, dray.CodeInvalidPosition, "latitude"},
		"heading a string":       {`{"type":"position","heading":"1",` + place + `}`, dray.CodeInvalidPosition, "heading"},
		"timestamp fractional":   {`{"type":"position","timestamp":1.5,` + place + `}`, dray.CodeInvalidPosition, "timestamp"},
		"timestamp negative":     {`{"type":"position","timestamp":-1,` + place + `}`, dray.CodeInvalidPosition, "timestamp"},
		"timestamp of year 1":    {`{"type":"position","timestamp":-62135596800000,` + place + `}`, dray.CodeInvalidPosition, "timestamp"},
		"timestamp a string":     {`{"type":"position","timestamp":"1",` + place + `}`, dray.CodeInvalidPosition, "timestamp"},
		"driver a number":        {`{"type":"position","driver":1,` + place + `}`, dray.CodeBadRequest, "driver"},
		"driver null":            {`{"type":"position","driver":null,` + place + `}`, dray.CodeBadRequest, "driver"},
		"driver empty":           {`{"type":"position","driver":"",` + place + `}`, dray.CodeBadRequest, "driver"},
		"attributes a list":      {`{"type":"position","attributes":[],` + place + `}`, dray.CodeBadRequest, "attributes"},
		"attribute is a number":  {`{"type":"position","attributes":{"a":1},` + place + `}`, dray.CodeBadRequest, "attributes"},
		"attribute is null":      {`{"type":"position","attributes":{"a":null},` + place + `}`, dray.CodeBadRequest, "attributes"},
		"attribute is an object": {`{"type":"position","attributes":{"a":{}},` + place + `}`, dray.CodeBadRequest, "attributes"},
		"seq negative":           {`{"type":"position","seq":-1,` + place + `}`, dray.CodeBadRequest, "seq"},
		"seq fractional":         {`{"type":"position","seq":1.5,` + place + `}`, dray.CodeBadRequest, "seq"},
		"seq a string":           {`{"type":"position","seq":"1",` + place + `}`, dray.CodeBadRequest, "seq"},
		"seq 2^53":               {`{"type":"position","seq":9007199254740992,` + place + `}`, dray.CodeBadRequest, "seq"},
		"positions missing":      {`{"type":"positions","id":1}`, dray.CodeBadRequest, "positions"},
		"positions null":         {`{"type":"positions","positions":null}`, dray.CodeBadRequest, "positions"},
		"positions an object":    {`{"type":"positions","positions":{}}`, dray.CodeBadRequest, "positions"},
		"batch of 0":             {`{"type":"positions","positions":[]}`, dray.CodeBadRequest, "positions"},
		"batch of 1001":          {`{"type":"positions","positions":[0` + strings.Repeat(",0", 1000) + `]}`, dray.CodeTooLarge, "positions"},
		"batch of 1001 positions": {`{"type":"positions","positions":[{"latitude":1,"longitude":1}` +
			strings.Repeat(`,{"latitude":1,"longitude":1}`, 1000) + `]}`, dray.CodeTooLarge, "positions"},

		"no shape":                    {`{"type":"subscribe","id":1}`, dray.CodeBadRequest, "nearby"},
		"two shapes":                  {`{"type":"subscribe","id":1,"drivers":["d"],"cells":["87283472bffffff"]}`, dray.CodeBadRequest, "nearby"},
		"update of nothing":           {`{"type":"update","id":1}`, dray.CodeBadRequest, "filter"},
		"interval -1":                 {`{"type":"subscribe","id":1,"drivers":["d"],"intervalMs":-1}`, dray.CodeBadRequest, "intervalMs"},
		"interval 60001":              {`{"type":"subscribe","id":1,"drivers":["d"],"intervalMs":60001}`, dray.CodeBadRequest, "intervalMs"},
		"interval 1.5":                {`{"type":"subscribe","id":1,"drivers":["d"],"intervalMs":1.5}`, dray.CodeBadRequest, "intervalMs"},
		"interval a string":           {`{"type":"subscribe","id":1,"drivers":["d"],"intervalMs":"1"}`, dray.CodeBadRequest, "intervalMs"},
		"south missing":               {`{"type":"subscribe","id":1,"bounds":{"west":1,"north":1,"east":1}}`, dray.CodeBadRequest, "bounds.south"},
		"south null":                  {`{"type":"subscribe","id":1,"bounds":{"south":null,"west":1,"north":1,"east":1}}`, dray.CodeBadRequest, "bounds.south"},
		"west a string":               {`{"type":"subscribe","id":1,"bounds":{"south":1,"west":"1","north":1,"east":1}}`, dray.CodeBadRequest, "bounds.west"},
		"north 1e400":                 {`{"type":"subscribe","id":1,"bounds":{"south":1,"west":1,"north":1e400,"east":1}}`, dray.CodeBadRequest, "bounds.north"},
		"East for east":               {`{"type":"subscribe","id":1,"bounds":{"south":1,"west":1,"north":1,"East":1}}`, dray.CodeBadRequest, "bounds.east"},
		"bounds a list":               {`{"type":"subscribe","id":1,"bounds":[1,2,3,4]}`, dray.CodeBadRequest, "bounds"},
		"circle without a latitude":   {`{"type":"subscribe","id":1,"nearby":{"longitude":1,"radius":1}}`, dray.CodeBadRequest, "nearby.latitude"},
		"circle at longitude null":    {`{"type":"subscribe","id":1,"nearby":{"latitude":1,"longitude":null,"radius":1}}`, dray.CodeBadRequest, "nearby.longitude"},
		"circle at latitude 86":       {`{"type":"subscribe","id":1,"nearby":{"latitude":86,"longitude":1,"radius":1}}`, dray.CodeBadRequest, "nearby"},
		"circle of radius 0":          {`{"type":"subscribe","id":1,"nearby":{"latitude":1,"longitude":1,"radius":0}}`, dray.CodeBadRequest, "radius"},
		"circle of 50,001 m":          {`{"type":"subscribe","id":1,"nearby":{"latitude":1,"longitude":1,"radius":50001}}`, dray.CodeBadRequest, "radius"},
		"area without type":           {`{"type":"subscribe","id":1,"area":{"coordinates":[[[0,0],[1,0],[1,1],[0,0]]]}}`, dray.CodeBadRequest, "area"},
		"area a MultiPolygon":         {`{"type":"subscribe","id":1,"area":{"type":"MultiPolygon","coordinates":[[[[0,0],[1,0],[1,1],[0,0]]]]}}`, dray.CodeBadRequest, "area"},
		"area without coordinates":    {`{"type":"subscribe","id":1,"area":{"type":"Polygon"}}`, dray.CodeBadRequest, "area"},
		"area without rings":          {`{"type":"subscribe","id":1,"area":{"type":"Polygon","coordinates":[]}}`, dray.CodeBadRequest, "area"},
		"point null":                  {`{"type":"subscribe","id":1,"area":{"type":"Polygon","coordinates":[[null]]}}`, dray.CodeBadRequest, "area"},
		"point of one number":         {`{"type":"subscribe","id":1,"area":{"type":"Polygon","coordinates":[[[1]]]}}`, dray.CodeBadRequest, "area"},
		"point with null":             {`{"type":"subscribe","id":1,"area":{"type":"Polygon","coordinates":[[[1,null]]]}}`, dray.CodeBadRequest, "area.coordinates"},
		"point with 1e400":            {`{"type":"subscribe","id":1,"area":{"type":"Polygon","coordinates":[[[1,1e400]]]}}`, dray.CodeBadRequest, "area.coordinates"},
		"point with a bad altitude":   {`{"type":"subscribe","id":1,"area":{"type":"Polygon","coordinates":[[[1,1,"x"]]]}}`, dray.CodeBadRequest, "area.coordinates"},
		"1001 points":                 {`{"type":"subscribe","id":1,"area":{"type":"Polygon","coordinates":[[[1,1]` + strings.Repeat(`,[1,1]`, 1000) + `]]}}`, dray.CodeTooLarge, "area"},
		"1001 points in two rings":    {`{"type":"subscribe","id":1,"area":{"type":"Polygon","coordinates":[[[1,1]],[[1,1]` + strings.Repeat(`,[1,1]`, 999) + `]]}}`, dray.CodeTooLarge, "area"},
		"501 cells":                   {`{"type":"subscribe","id":1,"cells":["8"` + strings.Repeat(`,"8"`, 500) + `]}`, dray.CodeTooLarge, "cells"},
		"no cells":                    {`{"type":"subscribe","id":1,"cells":[]}`, dray.CodeBadRequest, "cells"},
		"cell is a number":            {`{"type":"subscribe","id":1,"cells":[617700169958293503]}`, dray.CodeBadRequest, "cells"},
		"cell is null":                {`{"type":"subscribe","id":1,"cells":[null]}`, dray.CodeBadRequest, "cells"},
		"cell is no hexadecimal":      {`{"type":"subscribe","id":1,"cells":["+8"]}`, dray.CodeBadRequest, "cells"},
		"cell of 17 digits":           {`{"type":"subscribe","id":1,"cells":["087283472bffffff0"]}`, dray.CodeBadRequest, "cells"},
		"501 drivers":                 {`{"type":"subscribe","id":1,"drivers":["d"` + strings.Repeat(`,"d"`, 500) + `]}`, dray.CodeTooLarge, "drivers"},
		"driver of a list is no id":   {`{"type":"subscribe","id":1,"drivers":["d","*"]}`, dray.CodeBadRequest, "drivers"},
		"drivers a string":            {`{"type":"subscribe","id":1,"drivers":"d"}`, dray.CodeBadRequest, "drivers"},
		"stock without a location":    {`{"type":"subscribe","id":1,"stock":{}}`, dray.CodeBadRequest, "stock.location"},
		"filter a list":               {`{"type":"subscribe","id":1,"drivers":["d"],"filter":[]}`, dray.CodeBadRequest, "filter"},
		"filter of a string":          {`{"type":"subscribe","id":1,"drivers":["d"],"filter":{"a":"b"}}`, dray.CodeBadRequest, "filter"},
		"filter of no values":         {`{"type":"subscribe","id":1,"drivers":["d"],"filter":{"a":[]}}`, dray.CodeBadRequest, "filter"},
		"filter of null":              {`{"type":"subscribe","id":1,"drivers":["d"],"filter":{"a":[null]}}`, dray.CodeBadRequest, "filter"},
		"filter of 65 values":         {`{"type":"subscribe","id":1,"drivers":["d"],"filter":{"a":["b"` + strings.Repeat(`,"b"`, 64) + `]}}`, dray.CodeTooLarge, "filter"},
		"filter of 17 KiB":            {`{"type":"subscribe","id":1,"drivers":["d"],"filter":{"a":["b"` + strings.Repeat(`,"`+strings.Repeat("b", 256)+`"`, 63) + `],"b":["` + strings.Repeat("b", 256) + `","b"]}}`, dray.CodeTooLarge, "filter"},
		"question without a latitude": {`{"type":"nearby","id":1,"longitude":1,"radius":1}`, dray.CodeInvalidPosition, "latitude"},
		"question at latitude 86":     {`{"type":"nearby","id":1,"latitude":86,"longitude":1,"radius":1}`, dray.CodeInvalidPosition, "latitude"},
		"question at longitude 181":   {`{"type":"nearby","id":1,"latitude":1,"longitude":181,"radius":1}`, dray.CodeInvalidPosition, "longitude"},
		"question at longitude 1e400": {`{"type":"nearby","id":1,"latitude":1,"longitude":1e400,"radius":1}`, dray.CodeInvalidPosition, "longitude"},
		"question of radius -1":       {`{"type":"nearby","id":1,"latitude":1,"longitude":1,"radius":-1}`, dray.CodeBadRequest, "radius"},
		"question of no radius":       {`{"type":"nearby","id":1,"latitude":1,"longitude":1}`, dray.CodeBadRequest, "radius"},
		"question of radius \"1\"":    {`{"type":"nearby","id":1,"latitude":1,"longitude":1,"radius":"1"}`, dray.CodeBadRequest, "radius"},
		"limit 0":                     {`{"type":"nearby","id":1,"latitude":1,"longitude":1,"radius":1,"limit":0}`, dray.CodeBadRequest, "limit"},
		"limit 1001":                  {`{"type":"nearby","id":1,"latitude":1,"longitude":1,"radius":1,"limit":1001}`, dray.CodeBadRequest, "limit"},
	} {
		t.Run(name, func(t *testing.T) {
			var d decoder
			var m message
			err := d.decode([]byte(c.frame), &m)
			if dray.CodeOf(err) != c.code || field(err) != c.field {
				t.Errorf("decode(%.200s) = %v (%s of %q), want %s of %q", c.frame, err, dray.CodeOf(err), field(err), c.code, c.field)
			}
		})
	}
}

func field(err error) string {
	if e, ok := errors.AsType[*dray.Error](err); ok && len(e.Details) > 0 {
		return e.Details[0].Field
	}
	return ""
}

func TestDecodeNotUTF8(t *testing.T) {
	for _, frame := range []string{
		"\xff", `{"type":"auth","token":"` + "\xc0\x80" + `"}`, `{"type":"position","driver":"` + "\xed\xa0\x80" + `","latitude":1,"longitude":1}`,
		`{"type":"position","latitude":1,"longitude":1,"attributes":{"a":"` + "\x80" + `"}}`, `{"type":"position","latitude":1,"longitude":1}` + "\xff",
	} {
		var d decoder
		if err := d.decode([]byte(frame), new(message)); !errors.Is(err, errNotUTF8) {
			t.Errorf("decode(%q) = %v, want errNotUTF8", frame, err)
		}
	}
}

func TestDecodeTakes(t *testing.T) {
	var (
		nan    = math.NaN()
		at     = dray.NewPosition("d1", dray.Point{Latitude: 24.86, Longitude: -67.01})
		lat    = dray.NewPosition("", dray.Point{Latitude: 1, Longitude: 2})
		whole  = dray.Position{Driver: "d1", Latitude: 1, Longitude: 2, Accuracy: 3, Altitude: -4.5, Heading: 359.5, Speed: 0, Timestamp: time.UnixMilli(1700000000123), Attributes: map[string]string{"status": "free"}}
		free   = dray.Filter{"status": {"free"}, "vehicle": {"van", "truck"}}
		square = [][][2]float64{{{0, 0}, {1, 0}, {1, 1}, {0, 0}}}
	)
	lat.Altitude, lat.Heading = nan, nan
	for name, c := range map[string]struct {
		frame string
		want  message
	}{
		"auth":           {`{"type":"auth","token":"t"}`, message{typ: "auth", token: "t"}},
		"auth with id":   {`{"type":"auth","id":"é","token":"\u0074"}`, message{typ: "auth", id: []byte(`"é"`), token: "t"}},
		"null is absent": {`{"type":"auth","id":null,"token":"t"}`, message{typ: "auth", token: "t"}},
		"position":       {`{"type":"position","driver":"d1","latitude":24.86,"longitude":-67.01}`, message{typ: "position", positions: []dray.Position{at}, index: []int{0}}},
		"position in another order and spelling": {" {\t\"longitude\" : -6701e-2, \"driver\":\"\\u00641\", \"latitude\":24.86,\"unknown\":[{}]\r\n, \"type\":\"position\" } ",
			message{typ: "position", positions: []dray.Position{at}, index: []int{0}}},
		"position with all": {`{"type":"position","seq":7,"id":"x","driver":"d1","latitude":1,"longitude":2,"accuracy":3,"altitude":-4.5,"heading":359.5,"speed":0,"timestamp":1700000000123,"attributes":{"status":"free"}}`,
			message{typ: "position", id: []byte(`"x"`), seq: 7, positions: []dray.Position{whole}, index: []int{0}}},
		"as a browser gives it": {`{"type":"position","latitude":1,"longitude":2,"accuracy":null,"altitude":null,"altitudeAccuracy":null,"heading":null,"speed":null,"seq":0}`,
			message{typ: "position", seq: 0, positions: []dray.Position{lat}, index: []int{0}}},
		"members of Driver are ignored in a position": {`{"type":"position","latitude":1,"longitude":2,"claimed":"?","distance":"?","receivedAt":"?"}`,
			message{typ: "position", positions: []dray.Position{lat}, index: []int{0}}},
		"(0, 0) is a place": {`{"type":"position","driver":"d","latitude":0,"longitude":-0.0}`,
			message{typ: "position", positions: []dray.Position{dray.NewPosition("d", dray.Point{Longitude: math.Copysign(0, -1)})}, index: []int{0}}},
		"seq of a client with floats": {`{"type":"position","latitude":1,"longitude":2,"seq":5.0}`,
			message{typ: "position", seq: 5, positions: []dray.Position{lat}, index: []int{0}}},
		"batch": {`{"type":"positions","id":12,"positions":[{"driver":"d1","latitude":24.86,"longitude":-67.01},{"latitude":1,"longitude":2}]}`,
			message{typ: "positions", id: []byte(`12`), positions: []dray.Position{at, lat}, index: []int{0, 1}}},
		"batch with bad entries": {`{"type":"positions","positions":[7,{"driver":"d1","latitude":24.86,"longitude":-67.01},{"latitude":"1","longitude":2},null,[],{"latitude":1,"longitude":2}]}`,
			message{typ: "positions", positions: []dray.Position{at, lat}, index: []int{1, 5}, rejected: []rejection{
				{0, dray.ErrBadRequest}, {2, dray.ErrInvalidPosition}, {3, dray.ErrBadRequest}, {4, dray.ErrBadRequest}}}},
		"seq of a batch is ignored": {`{"type":"positions","seq":"?","positions":[{"latitude":1,"longitude":2}]}`,
			message{typ: "positions", positions: []dray.Position{lat}, index: []int{0}}},
		"offline":            {`{"type":"offline"}`, message{typ: "offline"}},
		"offline of another": {`{"type":"offline","id":-3,"driver":"d1"}`, message{typ: "offline", id: []byte("-3"), driver: "d1"}},
		"unsubscribe":        {`{"type":"unsubscribe","id":0}`, message{typ: "unsubscribe", id: []byte("0")}},
		"subscribe nearby":   {`{"type":"subscribe","id":1,"nearby":{"latitude":1,"longitude":-180,"radius":5e4},"intervalMs":0}`, message{typ: "subscribe", id: []byte("1"), shape: &dray.Shape{Nearby: &dray.Circle{Latitude: 1, Longitude: -180, Radius: 50_000}}, interval: 0}},
		"subscribe bounds":   {`{"type":"subscribe","id":1,"nearby":null,"bounds":{"south":-1,"west":179,"north":1,"east":-179},"intervalMs":60000}`, message{typ: "subscribe", id: []byte("1"), shape: &dray.Shape{Bounds: &dray.Bounds{South: -1, West: 179, North: 1, East: -179}}, interval: time.Minute}},
		"subscribe area":     {`{"type":"subscribe","id":1,"area":{"type":"Polygon","bbox":[0,0,1,1],"coordinates":[[[0,0],[1,0,12],[1,1],[0,0]]]},"filter":{"status":["free"],"vehicle":["van","truck"]}}`, message{typ: "subscribe", id: []byte("1"), shape: &dray.Shape{Area: &dray.Polygon{Type: "Polygon", Coordinates: square}}, filter: free}},
		"subscribe cells":    {`{"type":"subscribe","id":1,"cells":["87283472bffffff"]}`, message{typ: "subscribe", id: []byte("1"), shape: &dray.Shape{Cells: []string{"87283472bffffff"}}}},
		"subscribe drivers":  {`{"type":"subscribe","id":1,"drivers":["a","b"]}`, message{typ: "subscribe", id: []byte("1"), shape: &dray.Shape{Drivers: []string{"a", "b"}}}},
		"subscribe stock":    {`{"type":"subscribe","id":1,"stock":{"location":"l","skus":["s"]}}`, message{typ: "subscribe", id: []byte("1"), shape: &dray.Shape{Stock: &dray.StockShape{Location: "l", SKUs: []string{"s"}}}}},
		"update of a filter": {`{"type":"update","id":1,"filter":{},"intervalMs":"?"}`, message{typ: "update", id: []byte("1"), filter: dray.Filter{}}},
		"update of a shape":  {`{"type":"update","id":1,"drivers":["a"]}`, message{typ: "update", id: []byte("1"), shape: &dray.Shape{Drivers: []string{"a"}}}},
		"nearby":             {`{"type":"nearby","id":"q","latitude":1,"longitude":2,"radius":300.5}`, message{typ: "nearby", id: []byte(`"q"`), center: dray.Point{Latitude: 1, Longitude: 2}, radius: 300.5}},
		"nearby with all":    {`{"type":"nearby","id":"q","latitude":1,"longitude":2,"radius":300,"limit":1000,"filter":{"status":["free"],"vehicle":["van","truck"]}}`, message{typ: "nearby", id: []byte(`"q"`), center: dray.Point{Latitude: 1, Longitude: 2}, radius: 300, limit: 1000, filter: free}},
		"reserve": {`{"type":"reserve","id":1,"key":"k 1","location":"l","items":[{"sku":"a","quantity":1},{"sku":"a","quantity":1e9}],"ttlSeconds":86400,"replicas":2}`, message{typ: "reserve", id: []byte("1"),
			order: &order{location: "l", items: []dray.Item{{SKU: "a", Quantity: 1}, {SKU: "a", Quantity: 1e9}}, ttl: 24 * time.Hour, options: inventory.Options{Key: "k 1", Replicas: 2}}}},
		"reserve at the default": {`{"type":"reserve","id":1,"items":[{"sku":"a","quantity":1.0,"x":[]}],"ttlSeconds":null,"key":null}`, message{typ: "reserve", id: []byte("1"),
			order: &order{location: "default", items: []dray.Item{{SKU: "a", Quantity: 1}}}}},
		"commit": {`{"type":"commit","id":1,"reservation":"l.1","ttlSeconds":"?"}`, message{typ: "commit", id: []byte("1"), order: &order{reservation: "l.1"}}},
		"release of a part": {`{"type":"release","id":1,"reservation":"l.1","items":[{"sku":"a","quantity":3}],"key":"k"}`, message{typ: "release", id: []byte("1"),
			order: &order{reservation: "l.1", items: []dray.Item{{SKU: "a", Quantity: 3}}, options: inventory.Options{Key: "k"}}}},
		"extend": {`{"type":"extend","id":1,"reservation":"l.1","ttlSeconds":1,"items":"?"}`, message{typ: "extend", id: []byte("1"), order: &order{reservation: "l.1", ttl: time.Second}}},
		"stock":  {`{"type":"stock","id":1,"location":"l","sku":"a","items":"?"}`, message{typ: "stock", id: []byte("1"), order: &order{location: "l", sku: "a"}}},
		"claim": {`{"type":"claim","id":1,"key":"k","latitude":1,"longitude":2,"radius":3,"count":4,"filter":{"status":["free"],"vehicle":["van","truck"]},"ttlSeconds":5}`,
			message{typ: "claim", id: []byte("1"), claim: &dray.ClaimRequest{Circle: dray.Circle{Latitude: 1, Longitude: 2, Radius: 3}, Count: 4, Filter: free, TTL: 5 * time.Second, Key: "k"}}},
		"claim of one": {`{"type":"claim","id":1,"latitude":1,"longitude":2,"radius":3,"ttlSeconds":5}`,
			message{typ: "claim", id: []byte("1"), claim: &dray.ClaimRequest{Circle: dray.Circle{Latitude: 1, Longitude: 2, Radius: 3}, Count: 1, TTL: 5 * time.Second}}},
		"unclaim":               {`{"type":"unclaim","id":1,"claim":"c"}`, message{typ: "unclaim", id: []byte("1"), ended: "c"}},
		"id of 64 bytes":        {`{"type":"unsubscribe","id":"` + strings.Repeat("a", 64) + `"}`, message{typ: "unsubscribe", id: []byte(`"` + strings.Repeat("a", 64) + `"`)}},
		"escapes of an id stay": {`{"type":"unsubscribe","id":"\u0061\/"}`, message{typ: "unsubscribe", id: []byte(`"\u0061\/"`)}},
		"nested 32 deep":        {`{"type":"unsubscribe","id":1,"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `,"y":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\""}`, message{typ: "unsubscribe", id: []byte("1")}},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(c.frame, `"seq":0`) && c.want.seq == 0 {
				c.want.seq = -1
			}
			if !strings.Contains(c.frame, `"intervalMs":0`) && c.want.interval == 0 {
				c.want.interval = -1
			}
			var d decoder
			var m message
			err := d.decode([]byte(c.frame), &m)
			if got, want := describe(&m, err), describe(&c.want, nil); got != want {
				t.Errorf("decode(%s) =\n%s, want\n%s", c.frame, got, want)
			}
		})
	}
}

// What can be told of a bad message is told: an answer needs its id, an error of a position
// its seq.
func TestDecodeTellsWhatItCan(t *testing.T) {
	for frame, want := range map[string]message{
		`{"type":"position","seq":7,"latitude":"1","longitude":1}`:   {typ: "position", seq: 7},
		`{"id":"a","type":"nearby"}`:                                 {typ: "nearby", id: []byte(`"a"`), seq: -1},
		`{"id":"a","type":"fly","seq":1}`:                            {id: []byte(`"a"`), seq: -1},
		`{"id":"a","type":"positions","positions":[]}`:               {typ: "positions", id: []byte(`"a"`), seq: -1},
		`{"id":{},"type":"position","latitude":1,"longitude":1}`:     {typ: "position", seq: -1},
		`{"id":"a","type":"position","latitude":1,"longitude":1} []`: {typ: "position", id: []byte(`"a"`), seq: -1},
		`{"type":"position","seq":7,"latitude":1,"latitude":1}`:      {typ: "position", seq: 7},
		`{"type":"nearby","id":7,"x":"\ud800"}`:                      {typ: "nearby", id: []byte(`7`), seq: -1},
		`{"type":"nearby","id":7,"id":8}`:                            {typ: "nearby", seq: -1},
		`{"type":"nearby","type":"auth","id":7}`:                     {id: []byte(`7`), seq: -1},
		`{"id":"\ud800","type":"nearby"}`:                            {typ: "nearby", seq: -1},
		`{"id":5,"type":"nea`:                                        {id: []byte(`5`), seq: -1},
	} {
		var d decoder
		var m message
		err := d.decode([]byte(frame), &m)
		if dray.CodeOf(err) == "" || m.typ != want.typ || string(m.id) != string(want.id) || m.seq != want.seq {
			t.Errorf("decode(%s) = %v with type %q, id %s, seq %d; want %q, %s, %d", frame, err, m.typ, m.id, m.seq, want.typ, want.id, want.seq)
		}
	}
}

// What is out of order inside one entry of a batch is that entry's fault alone.
func TestDecodeRefusesOneEntry(t *testing.T) {
	const good = `{"driver":"d","latitude":1,"longitude":1}`
	for _, bad := range []string{
		`{"driver":"d","latitude":1,"latitude":1,"longitude":1}`,
		`{"driver":"\ud800","latitude":1,"longitude":1}`,
		`{"driver":"d","latitude":1,"longitude":1,"attributes":{"a":"\udead"}}`,
		`{"driver":"d","latitude":1,"longitude":1,"attributes":{"a":"1","a":"2"}}`,
	} {
		var d decoder
		var m message
		err := d.decode([]byte(`{"positions":[`+good+`,`+bad+`,`+good+`],"type":"positions","id":7}`), &m)
		if err != nil || string(m.id) != "7" || !slices.Equal(m.index, []int{0, 2}) || len(m.rejected) != 1 || m.rejected[0].index != 1 || m.rejected[0].err.Code != dray.CodeBadRequest {
			t.Errorf("with %s: %v, id %s, taken %v, rejected %v; want 0 and 2 taken, 1 rejected", bad, err, m.id, m.index, m.rejected)
		}
	}
}

// Nothing of a position that will be refused is remembered: not its driver, not its attributes.
func TestMemoryHoldsNothingRefused(t *testing.T) {
	for _, bad := range []string{
		`"latitude":99,"longitude":1`, `"latitude":1,"longitude":181`, `"latitude":1,"longitude":1,"heading":360`,
		`"latitude":1,"longitude":1,"speed":-1`, `"latitude":1,"longitude":1,"timestamp":9007199254740000`,
	} {
		for _, batch := range []bool{false, true} {
			d := decoder{now: time.Now()}
			var m message
			frame := `{"type":"position","driver":"d",` + bad + `,"attributes":{"a":"b"}}`
			if batch {
				frame = `{"type":"positions","positions":[{"driver":"d",` + bad + `,"attributes":{"a":"b"}}]}`
			}
			if err := d.decode([]byte(frame), &m); err != nil || m.positions[0].Driver != "d" {
				t.Fatalf("decode(%s) = %v", frame, err)
			}
			if n := len(d.memory.young.senders) + len(d.memory.young.sets); n != 0 {
				t.Errorf("after %s %d names and attributes are held", frame, n)
			}
			if err := d.decode([]byte(`{"type":"position","driver":"d","latitude":1,"longitude":1}`), &m); err != nil || m.positions[0].Attributes != nil {
				t.Errorf("after %s the driver has %v, %v", frame, m.positions[0].Attributes, err)
			}
		}
	}
}

// A message keeps nothing of the one before.
func TestDecodeStartsAnew(t *testing.T) {
	var d decoder
	var m message
	for _, frame := range []string{
		`{"type":"positions","id":1,"positions":[1,{"driver":"a","latitude":1,"longitude":1,"speed":1,"timestamp":5}]}`,
		`{"type":"subscribe","id":1,"drivers":["d"],"filter":{"a":["b"]},"intervalMs":5}`,
		`{"type":"position","seq":4,"driver":"a","latitude":1,"longitude":1,"speed":1,"attributes":{}}`,
		`{"type":"nearby","id":1,"latitude":1,"longitude":1,"radius":4,"limit":3}`,
		`{"type":"auth","token":"t"}`, `{"type":"offline","driver":"d"}`, `{"type":"unsubscribe","id":"x"}`, `{`,
		`{"type":"position","driver":"b","latitude":1,"longitude":1}`,
	} {
		err := d.decode([]byte(frame), &m)
		var fresh message
		want := new(decoder).decode([]byte(frame), &fresh)
		if got, want := describe(&m, err), describe(&fresh, want); got != want {
			t.Errorf("decode(%s) after others =\n%s, alone\n%s", frame, got, want)
		}
	}
}

// describe tells all of m, bit by bit, so that two messages are the same if their
// descriptions are.
func describe(m *message, err error) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s field=%s typ=%q id=%s seq=%d", dray.CodeOf(err), field(err), m.typ, m.id, m.seq)
	if err != nil {
		return b.String()
	}
	for i := range m.positions {
		p := &m.positions[i]
		fmt.Fprintf(&b, "\n%d: %q", m.index[i], p.Driver)
		for _, f := range []float64{p.Latitude, p.Longitude, p.Accuracy, p.Altitude, p.Heading, p.Speed} {
			fmt.Fprintf(&b, " %v/%x", f, math.Float64bits(f))
		}
		fmt.Fprintf(&b, " %v %#v", p.Timestamp, p.Attributes)
	}
	for _, r := range m.rejected {
		fmt.Fprintf(&b, "\nrejected %d: %s", r.index, r.err.Code)
	}
	shape, _ := json.Marshal(m.shape)
	filter, _ := json.Marshal(m.filter)
	fmt.Fprintf(&b, "\ntoken=%q driver=%q shape=%s filter=%s interval=%d center=%v radius=%v limit=%d",
		m.token, m.driver, shape, filter, m.interval, m.center, m.radius, m.limit)
	if m.order != nil {
		fmt.Fprintf(&b, " order=%+v", *m.order)
	}
	if m.claim != nil {
		fmt.Fprintf(&b, " claim=%+v", *m.claim)
	}
	if m.ended != "" {
		fmt.Fprintf(&b, " ended=%s", m.ended)
	}
	return b.String()
}

// The fast way and the strict one, each with its own memory, say the same of any sequence of
// messages (one a line).
func FuzzDecode(f *testing.F) {
	for _, line := range []string{
		`{"type":"position","driver":"d1","latitude":24.86,"longitude":67.01,"timestamp":1700000000123,"seq":1,"attributes":{"status":"free"}}`,
		`{"type":"position","driver":"d1","latitude":24.86,"longitude":67.01}` + "\n" + `{"type":"position","latitude":-0.0e-5,"longitude":1E+2,"attributes":{}}`,
		`{"type":"positions","id":"a","positions":[{"driver":"d1","latitude":1,"longitude":2,"attributes":{"a":"b","é":"\u00e9"}},{"driver":"d1","latitude":1.00000000000000001,"longitude":123456789012345678901}]}`,
		`{"type":"positions","positions":[{"driver":"d1","latitude":1,"longitude":2,"attributes":{"a":"b"}}, 1, {}]}` + "\n" + `{"type":"position","driver":"d1","latitude":24.86,"longitude":67.01}`,
		`{"type":"positions","id":9,"positions":[{"driver":"d1","latitude":1,"longitude":2,"attributes":{"a":"b"}}]}x` + "\n" + `{"type":"position","driver":"d1","latitude":24.86,"longitude":67.01}`,
		`{"type":"position","latitude":1,"longitude":2,"accuracy":null,"altitude":null,"altitudeAccuracy":null,"heading":0.1,"speed":3.25}`,
		`{"type":"subscribe","id":1,"nearby":{"latitude":1,"longitude":2,"radius":3},"filter":{"a":["b"]},"intervalMs":5}`,
		`{"type":"subscribe","id":1,"bounds":{"south":1,"west":2,"north":3,"east":4}}`,
		`{"type":"update","id":1,"area":{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,0]]]}}`,
		`{"type":"subscribe","id":"x","cells":["87283472bffffff"]}` + "\n" + `{"type":"subscribe","id":"x","drivers":["d"]}` + "\n" + `{"type":"subscribe","id":"x","stock":{"location":"l","skus":["s"]}}`,
		`{"type":"nearby","id":1,"latitude":1,"longitude":2,"radius":3,"limit":4}`,
		`{"type":"auth","id":1,"token":"t"}` + "\n" + `{"type":"offline","driver":"d"}` + "\n" + `{"type":"unsubscribe","id":2}` + "\n" + `{"type":"reserve","id":2}`,
		`{"type":"reserve","id":2,"key":"k","items":[{"sku":"a","quantity":2}],"ttlSeconds":9,"replicas":1}` + "\n" + `{"type":"commit","id":2,"reservation":"default.A","items":[{"sku":"a","quantity":1e400}]}`,
	} {
		f.Add([]byte(line), "")
		f.Add([]byte(line), "d1")
	}
	f.Fuzz(func(t *testing.T, lines []byte, driver string) {
		fast, strict := decoder{driver: driver}, decoder{driver: driver}
		var m, n message
		for line := range strings.SplitSeq(string(lines), "\n") {
			err := fast.decode([]byte(line), &m)
			n.reset()
			want := strict.decodeStrict([]byte(line), &n)
			if got, want := describe(&m, err), describe(&n, want); got != want {
				t.Fatalf("decode(%q) = %s\nstrictly %s", line, got, want)
			}
			if err == nil {
				checkForm(t, &m)
			}
		}
	})
}

// checkForm fails the test if m is against what message promises.
func checkForm(t *testing.T, m *message) {
	t.Helper()
	switch {
	case m.typ == "", len(m.positions) != len(m.index), len(m.positions)+len(m.rejected) > dray.MaxPositions:
	case m.id != nil && !validMessageID(m.id), m.id == nil && needsID(m.typ):
	case m.typ == typeSubscribe && m.shape == nil, m.typ == typeAuth && m.token == "":
	case m.typ == typeNearby && (!m.center.Valid() || !(m.radius > 0) || m.limit < 0 || m.limit > dray.MaxLimit):
	default:
		return
	}
	t.Fatalf("decode gave %s", describe(m, nil))
}

// fastNumber takes nothing that is no JSON number, and reads what it takes as strconv does.
func FuzzNumber(f *testing.F) {
	for _, s := range []string{"0", "-0", "1.5", "01", "-", "1.", ".5", "1e5", "1E-400", "1e400", "9007199254740993", "0.30000000000000004", "24.860734512345678901234567890", "1e", "+1", "0.00000000000000000000000001", "1_0", "0x1p-2", "12345678901234567890123"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, end := fastNumber([]byte(s+","), 0)
		want, err := strconv.ParseFloat(s, 64)
		valid := json.Valid([]byte(s)) && strings.Trim(s, "0123456789+-.eE") == "" && err == nil
		if (end == len(s)) != valid {
			t.Fatalf("fastNumber(%q) ends at %d; a JSON number in range: %v", s, end, valid)
		}
		if valid && math.Float64bits(got) != math.Float64bits(want) {
			t.Fatalf("fastNumber(%q) = %v, want %v", s, got, want)
		}
	})
}

func TestFastNumberRoundsRight(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		f := (random.Float64() - 0.5) * math.Pow(10, float64(random.IntN(40)-20))
		for _, s := range []string{
			strconv.FormatFloat(f, 'g', -1, 64), strconv.FormatFloat(f, 'f', random.IntN(30), 64), strconv.FormatFloat(f, 'e', random.IntN(20), 64),
		} {
			want, _ := strconv.ParseFloat(s, 64)
			if got, end := fastNumber([]byte(s), 0); end != len(s) || math.Float64bits(got) != math.Float64bits(want) {
				t.Fatalf("fastNumber(%q) = %v, %d, want %v, %d", s, got, end, want, len(s))
			}
		}
	}
}

// Attributes that are omitted are those last sent for the driver, whichever way the messages
// were read and whatever came between. The model is a map; a message that fails changes
// nothing in it.
func TestAttributesAreThoseLastSent(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	spellings := []struct {
		text   string
		values map[string]string // nil for omitted
	}{
		{``, nil}, {``, nil}, {``, nil}, {`,"attributes":null`, nil},
		{`,"attributes":{}`, map[string]string{}},
		{`,"attributes":{ }`, map[string]string{}},
		{`,"attributes":{"status":"free"}`, map[string]string{"status": "free"}},
		{`,"attributes":{"status":"busy"}`, map[string]string{"status": "busy"}},
		{`,"attributes":{"status":"fr\u0065e"}`, map[string]string{"status": "free"}},
		{`,"attributes": {"vehicle":"véhicule", "status":"free"}`, map[string]string{"vehicle": "véhicule", "status": "free"}},
	}
	d := decoder{driver: "me"}
	var m message
	model := map[string]map[string]string{}
	for round := range 20_000 {
		next := maps.Clone(model)
		var want []map[string]string
		var entries []string
		for range 1 + random.IntN(4) {
			driver := []string{"a", "b", "c", "me"}[random.IntN(4)]
			s := spellings[random.IntN(len(spellings))]
			if s.values != nil {
				next[driver] = s.values
			}
			want = append(want, next[driver])
			name := `"driver":"` + driver + `",`
			if driver == "me" && random.IntN(2) == 0 {
				name = ""
			}
			if random.IntN(2) == 0 {
				entries = append(entries, name+`"latitude":1,"longitude":2`+s.text)
			} else {
				entries = append(entries, strings.TrimPrefix(s.text+`,"longitude":2,`+name+`"latitude":1`, ","))
			}
		}
		frame := `{"type":"positions","positions":[{` + strings.Join(entries, `},{`) + `}]`
		if len(entries) == 1 {
			frame = `{` + entries[0] + `,"type":"position"`
		}
		switch random.IntN(12) {
		case 0: // does not count
			frame += `}!`
			want, next = nil, model
		case 1: // the strict way
			frame += `,"unknown":1}`
		default:
			frame += `}`
		}
		err := d.decode([]byte(frame), &m)
		model = next
		if (err != nil) != (want == nil) {
			t.Fatalf("round %d: decode(%s) = %v", round, frame, err)
		}
		for i, w := range want {
			if got := m.positions[i].Attributes; !maps.Equal(got, w) || (got == nil) != (w == nil) {
				t.Fatalf("round %d: decode(%s): entry %d has %#v, want %#v", round, frame, i, got, w)
			}
		}
	}
}

// Attributes against the contract are refused later; they must not stick.
func TestBadAttributesAreNotKept(t *testing.T) {
	long := strings.Repeat("x", dray.MaxAttributeValue+1)
	var d decoder
	var m message
	for frame, want := range map[string]int{
		`{"type":"position","driver":"d","latitude":1,"longitude":1,"attributes":{"a":"` + long + `"}}`:                             1,
		`{"type":"positions","positions":[{"driver":"d","latitude":1,"longitude":1,"attributes":{"":"b"}}]}`:                        1,
		`{"type":"positions","positions":[{"driver":"d","latitude":1,"longitude":1,"attributes":{"a":1}}]}`:                         0,
		`{"type":"positions","positions":[{"driver":"d","latitude":1,"longitude":1,"attributes":{"a":"` + "\u0000" + `"}},{},"x"]}`: -1,
	} {
		if err := d.decode([]byte(frame), &m); want >= 0 && (err != nil || len(m.positions) != want) {
			t.Fatalf("decode(%s) = %v with %d positions, want %d", frame, err, len(m.positions), want)
		}
		if err := d.decode([]byte(`{"type":"position","driver":"d","latitude":1,"longitude":1}`), &m); err != nil || m.positions[0].Attributes != nil {
			t.Fatalf("after %.100s the attributes are %v, %v", frame, m.positions[0].Attributes, err)
		}
	}
}

// However many drivers and attributes a client makes up, what is held stays bounded, and a
// driver in use keeps its attributes.
func TestMemoryIsBounded(t *testing.T) {
	d := decoder{memory: memory{limit: 100_000}}
	var m message
	if err := d.decode([]byte(`{"type":"position","driver":"regular","latitude":1,"longitude":1,"attributes":{"a":"regular"}}`), &m); err != nil {
		t.Fatal(err)
	}
	for i := range 20_000 {
		frame := fmt.Sprintf(`{"type":"position","driver":"driver-%d","latitude":1,"longitude":1,"attributes":{"a":"%d"}}`, i, i)
		if i%2 == 0 {
			frame = fmt.Sprintf(`{"type":"position","driver":"one","latitude":1,"longitude":1,"attributes":{"a":"%d"},"x":0}`, i)
		}
		if err := d.decode([]byte(frame), &m); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			if err := d.decode([]byte(`{"type":"position","driver":"regular","latitude":1,"longitude":1}`), &m); err != nil || m.positions[0].Attributes["a"] != "regular" {
				t.Fatalf("after %d drivers the regular one has %v, %v", i, m.positions[0].Attributes, err)
			}
		}
		for _, g := range []*generation{&d.memory.young, &d.memory.old} {
			held := 0
			for name, s := range g.senders {
				if held += senderBytes + len(name); name != s.name {
					t.Fatalf("%q holds the sender %q", name, s.name)
				}
			}
			for text, set := range g.sets {
				if held += set.bytes(); text != set.text {
					t.Fatalf("%q holds the attributes %q", text, set.text)
				}
			}
			if held != g.bytes || held > d.memory.limit {
				t.Fatalf("a generation holds %d bytes, counts %d, may have %d", held, g.bytes, d.memory.limit)
			}
		}
	}
}

// Only the names that a driver may have are held.
func TestMemoryHoldsNoBadNames(t *testing.T) {
	var d decoder
	var m message
	for i := range 1000 {
		frame := fmt.Sprintf(`{"type":"position","driver":"{%d}","latitude":1,"longitude":1,"attributes":{"a":"%d"}}`, i, i)
		if err := d.decode([]byte(frame), &m); err != nil || m.positions[0].Driver == "" {
			t.Fatalf("decode(%s) = %v, %v", frame, m.positions, err)
		}
	}
	if n := len(d.memory.young.senders) + len(d.memory.young.sets); n != 0 {
		t.Errorf("%d names and attributes are held, want none", n)
	}
}

// In the steady state (same drivers, same attributes) reading positions allocates nothing.
func TestDecodeAllocatesNothing(t *testing.T) {
	for name, frames := range map[string][][]byte{
		"position":                  {onePosition(1, "")},
		"position with attributes":  {onePosition(1, `,"attributes":{"status":"free"}`), onePosition(2, `,"attributes":{"status":"busy"}`), onePosition(3, "")},
		"position without a driver": {[]byte(`{"type":"position","latitude":24.860734512345678,"longitude":67.01,"attributes":{}}`)},
		"batch of 64":               {batchFrame(64, `,"attributes":{"status":"free","vehicle":"van"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			d := decoder{driver: "a-driver-of-a-name-that-is-over-32-bytes"}
			var m message
			run := func() {
				for _, frame := range frames {
					if err := d.decode(frame, &m); err != nil {
						t.Fatal(err)
					}
				}
			}
			run()
			if n := testing.AllocsPerRun(100, run); n != 0 {
				t.Errorf("decode allocates %v times, want 0", n)
			}
		})
	}
}

// Drivers of the same attributes share one map.
func TestAttributesAreShared(t *testing.T) {
	var d decoder
	var m message
	if err := d.decode(batchFrame(64, `,"attributes":{"status":"free"}`), &m); err != nil {
		t.Fatal(err)
	}
	if n := len(d.memory.young.sets); n != 1 {
		t.Errorf("64 drivers of the same attributes hold %d sets, want 1", n)
	}
}

func onePosition(seq int, attributes string) []byte {
	return fmt.Appendf(nil, `{"type":"position","driver":"driver-17","latitude":24.860734,"longitude":67.011364,"timestamp":1700000000123,"seq":%d%s}`, seq, attributes)
}

func batchFrame(n int, attributes string) []byte {
	var entries []string
	for i := range n {
		entries = append(entries, fmt.Sprintf(`{"driver":"driver-%d","latitude":24.%06d,"longitude":67.011364,"timestamp":1700000000123%s}`, i, 860734+i, attributes))
	}
	return []byte(`{"type":"positions","id":1,"positions":[` + strings.Join(entries, ",") + `]}`)
}

func BenchmarkDecode(b *testing.B) {
	browser := []byte(`{"type":"position","seq":12,"latitude":24.860734512345678,"longitude":67.01136412345678,"accuracy":4.75,"altitude":null,"altitudeAccuracy":null,"heading":271.25,"speed":13.5,"timestamp":1700000000123}`)
	for _, c := range []struct {
		name      string
		frame     []byte
		positions int
	}{
		{"position", onePosition(123, ""), 1},
		{"positionWithAttributes", onePosition(123, `,"attributes":{"status":"free","vehicle":"van"}`), 1},
		{"positionOfABrowser", browser, 1},
		{"batch64", batchFrame(64, ""), 64},
		{"batch64WithAttributes", batchFrame(64, `,"attributes":{"status":"free","vehicle":"van"}`), 64},
		{"batch1000", batchFrame(1000, ""), 1000},
	} {
		for _, way := range []struct {
			name   string
			decode func(*decoder, []byte, *message) error
		}{
			{"fast", (*decoder).decode},
			{"strict", func(d *decoder, b []byte, m *message) error { m.reset(); return d.decodeStrict(b, m) }},
		} {
			b.Run(c.name+"/"+way.name, func(b *testing.B) {
				d := decoder{driver: "me"}
				var m message
				b.ReportAllocs()
				b.SetBytes(int64(len(c.frame)))
				for b.Loop() {
					if err := way.decode(&d, c.frame, &m); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(c.positions), "ns/position")
			})
		}
	}
}

func BenchmarkDecodeManyDrivers(b *testing.B) {
	const drivers = 50_000
	var frames [][]byte
	for i := 0; i < drivers; i += 50 {
		var entries []string
		for j := range 50 {
			entries = append(entries, fmt.Sprintf(`{"driver":"driver-%d","latitude":24.860734,"longitude":67.011364,"timestamp":1700000000123,"attributes":{"status":"free"}}`, i+j))
		}
		frames = append(frames, []byte(`{"type":"positions","positions":[`+strings.Join(entries, ",")+`]}`))
	}
	frames = slices.Clip(frames)
	var d decoder
	var m message
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := d.decode(frames[i%len(frames)], &m); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50, "ns/position")
}
