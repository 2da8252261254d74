package httpapi

import "dray"

// A changeText is the message of a Change, a snapshot or a delta, made a piece at a time: one
// message of several frames. The objects in it are shared by all subscriptions, so what
// a connection holds of a large set is one piece and the list of what is in it. The zero
// changeText has no more.
type changeText struct {
	change *difference // nil when all of it was made
	id     []byte
	server *Server
	list   int // of drivers: 0 left, 1 entered, 2 moved; of stock: 0 left, 1 rows, 2 events
	next   int // of that list
	begun  bool
	sent   int // bytes written of the message, and with it
}

func (s *Server) changeText(id []byte, change *difference) changeText {
	return changeText{server: s, id: id, change: change}
}

// more tells whether a piece is still to come.
func (x *changeText) more() bool { return x.change != nil }

// appendPiece appends one frame, which ends when b has reached writeSize.
func (x *changeText) appendPiece(b []byte) []byte {
	op := byte(opMore)
	b, start := beginFrame(b)
	if !x.begun {
		op = opText
		b = x.appendHead(b)
	}
	for x.change != nil {
		if x.list > 2 {
			b = append(b, '}')
			x.change = nil
			break
		}
		if x.begun && len(b) >= writeSize {
			break
		}
		x.begun = true
		b = x.appendList(b)
	}
	b = endFrame(b, start)
	if b[start] = op; x.change == nil {
		b[start] |= final
	}
	return b
}

func (x *changeText) appendHead(b []byte) []byte {
	m := x.server.m
	if x.snapshot() {
		m.frame(frameSnapshot)
		b = append(b, `{"type":"snapshot","id":`...)
	} else {
		m.frame(frameDelta)
		b = append(b, `{"type":"delta","id":`...)
	}
	now := x.server.cfg.Now().UnixMilli()
	b = append(b, x.id...)
	b = appendInt(b, `,"version":`, int64(x.version()))
	b = appendInt(b, `,"serverTime":`, now)
	if c := x.change; !c.ofStock && len(c.drivers.Moved) > 0 {
		m.delivered(c.drivers.Moved[0], now)
	}
	return b
}

func (x *changeText) snapshot() bool {
	if x.change.ofStock {
		return x.change.stock.Snapshot
	}
	return x.change.drivers.Snapshot
}

func (x *changeText) version() uint64 {
	if x.change.ofStock {
		return x.change.stock.Version
	}
	return x.change.drivers.Version
}

// count is the length of a list. A snapshot of drivers has one list.
func (x *changeText) count(list int) int {
	if s := &x.change.stock; x.change.ofStock {
		return [...]int{len(s.Left), len(s.Rows), len(s.Events)}[list]
	}
	d := &x.change.drivers
	if d.Snapshot && list != 1 {
		return 0
	}
	return [...]int{len(d.Left), len(d.Entered), len(d.Moved)}[list]
}

// appendList appends of the current list what there is room for, its brackets, and goes on
// to the next when it ends. A list that is empty is left out, but in a snapshot.
func (x *changeText) appendList(b []byte) []byte {
	if n := x.count(x.list); n > 0 || x.snapshot() && x.list == 1 {
		if x.next == 0 {
			b = append(b, x.open()...)
		}
		for first := x.next; x.next < n; x.next++ {
			if len(b) >= writeSize && x.next > first {
				return b
			}
			if x.next > 0 {
				b = append(b, ',')
			}
			b = x.appendItem(b)
		}
		b = append(b, ']')
	}
	x.list, x.next = x.list+1, 0
	for x.list <= 2 && x.count(x.list) == 0 && (!x.snapshot() || x.list != 1) {
		x.list++
	}
	return b
}

func (x *changeText) open() string {
	switch {
	case x.change.ofStock:
		return [...]string{`,"left":[`, `,"stock":[`, `,"events":[`}[x.list]
	case x.change.drivers.Snapshot:
		return `,"drivers":[`
	}
	return [...]string{`,"left":[`, `,"entered":[`, `,"moved":[`}[x.list]
}

func (x *changeText) appendItem(b []byte) []byte {
	if x.change.ofStock {
		return x.appendStockItem(b)
	}
	switch c := &x.change.drivers; x.list {
	case 0:
		leave := &c.Left[x.next]
		b = dray.AppendString(append(b, `{"driver":`...), leave.Driver)
		b = dray.AppendString(append(b, `,"reason":`...), string(leave.Reason))
		return append(b, '}')
	case 1:
		return append(b, c.Entered[x.next]...)
	default:
		return append(b, c.Moved[x.next]...)
	}
}

func (x *changeText) appendStockItem(b []byte) []byte {
	switch c := &x.change.stock; x.list {
	case 0:
		b = dray.AppendString(append(b, `{"sku":`...), c.Left[x.next].SKU)
		b = dray.AppendString(append(b, `,"reason":`...), string(c.Left[x.next].Reason))
		return append(b, '}')
	case 1:
		return append(b, c.Rows[x.next]...)
	default:
		return c.Events[x.next].AppendJSON(b)
	}
}
