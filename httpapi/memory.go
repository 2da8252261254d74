package httpapi

import (
	"sync/atomic"

	"dray"
)

// memoryBytes is what one generation of a connection's memory may hold, about: 25,000
// drivers. A driver that is heard of again before so many others are keeps its attributes.
const memoryBytes = 4 << 20

// memoryFloor is what each generation may hold though all connections together hold more
// than Config.MaxRememberedBytes: the one driver of an app, with all the attributes it may have.
const memoryFloor = 16 << 10

// A budget counts what the memories of all connections hold. Safe for concurrent use.
type budget struct {
	most int64
	used atomic.Int64 // bytes
}

func (b *budget) add(bytes int) {
	if b != nil {
		b.used.Add(int64(bytes))
	}
}

func (b *budget) full() bool { return b != nil && b.used.Load() > b.most }

// What the things below cost beside their text, about.
const (
	senderBytes     = 128
	attributesBytes = 256
	pairBytes       = 64
)

// A memory is what one connection has been told of drivers: their names, each held once, and
// the attributes last sent for each. What is in use survives: when the young generation is
// full it becomes the old one, what is asked for moves from old to young, and the old
// generation before it is dropped. The zero memory is empty.
type memory struct {
	limit      int     // bytes of a generation; 0 means memoryBytes
	budget     *budget // of all connections; nil sets none
	young, old generation
	latest     *sender // the one asked for last, for most connections have one driver
}

type generation struct {
	bytes   int
	senders map[string]*sender     // driver -> its sender
	sets    map[string]*attributes // text -> what it says
}

// A sender is a driver, as a connection knows it.
type sender struct {
	name string
	last *attributes // last sent; nil for none yet
}

// attributes are what a JSON text says. Drivers of the same text share one.
type attributes struct {
	text   string
	values map[string]string // never changed
}

func (a *attributes) bytes() int {
	return attributesBytes + 2*len(a.text) + pairBytes*len(a.values)
}

// own is the sender of this name.
func (m *memory) own(name string) *sender {
	if m.latest != nil && m.latest.name == name {
		return m.latest
	}
	return m.sender([]byte(name))
}

// sender is the sender of this name; nil when it can be no driver's. The name "" is that of a
// connection that names nobody.
func (m *memory) sender(name []byte) *sender {
	s := m.latest
	if s != nil && s.name == string(name) {
		return s
	}
	if s = m.young.senders[string(name)]; s == nil {
		if s = m.admit(name); s == nil {
			return nil
		}
	}
	m.latest = s
	return s
}

// admit moves the sender of this name to the young generation, or makes one.
func (m *memory) admit(name []byte) *sender {
	s := m.old.senders[string(name)]
	if s == nil {
		if len(name) > 0 && !dray.ValidID(name) {
			return nil
		}
		s = &sender{name: string(name)}
	}
	bytes := senderBytes + len(name)
	if s.last != nil {
		bytes += s.last.bytes() // though it may be there already: room for both, so that they stay together
	}
	m.makeRoom(bytes)
	m.count(senderBytes + len(name))
	m.young.senders[s.name] = s
	if s.last != nil {
		s.last = m.keep(s.last)
	}
	return s
}

// attributes reads an object of strings; nil when it is none or against the contract.
func (m *memory) attributes(text []byte) *attributes {
	if set := m.held(text); set != nil {
		return set
	}
	var values map[string]string
	if dray.Unmarshal(text, &values) != nil || dray.ValidateAttributes(values) != nil {
		return nil
	}
	return m.admitAttributes(&attributes{string(text), values})
}

// attributesOf is attributes for values that are known to be in order.
func (m *memory) attributesOf(values map[string]string) *attributes {
	text := dray.AppendAttributes(nil, values)
	if set := m.held(text); set != nil {
		return set
	}
	return m.admitAttributes(&attributes{string(text), values})
}

func (m *memory) held(text []byte) *attributes {
	if set := m.young.sets[string(text)]; set != nil {
		return set
	}
	if set := m.old.sets[string(text)]; set != nil {
		return m.admitAttributes(set)
	}
	return nil
}

func (m *memory) admitAttributes(set *attributes) *attributes {
	m.makeRoom(set.bytes())
	return m.keep(set)
}

// keep holds set in the young generation, which has room for it, and returns the one held.
func (m *memory) keep(set *attributes) *attributes {
	if held := m.young.sets[set.text]; held != nil {
		return held
	}
	m.count(set.bytes())
	m.young.sets[set.text] = set
	return set
}

// count adds so many bytes to the young generation.
func (m *memory) count(bytes int) {
	m.young.bytes += bytes
	m.budget.add(bytes)
}

// makeRoom makes room in the young generation for so many bytes, by starting a new one if
// need be.
func (m *memory) makeRoom(bytes int) {
	limit := m.limit
	if limit == 0 {
		limit = memoryBytes
	}
	if limit > memoryFloor && m.budget.full() {
		limit = memoryFloor
	}
	if m.young.senders == nil || m.young.bytes+bytes > limit {
		m.budget.add(-m.old.bytes)
		m.old, m.latest = m.young, nil
		m.young = generation{senders: map[string]*sender{}, sets: map[string]*attributes{}}
	}
}

// forget empties the memory.
func (m *memory) forget() {
	m.budget.add(-m.young.bytes - m.old.bytes)
	*m = memory{limit: m.limit, budget: m.budget}
}

// fillIn names the drivers of positions and gives them the attributes last sent where they
// have none, in order. What is against the contract is left as it is and not remembered, for it
// will be refused.
func (d *decoder) fillIn(positions []dray.Position) {
	for i := range positions {
		p := &positions[i]
		if p.Driver == "" {
			p.Driver = d.driver
		}
		if !d.valid(p) || dray.ValidateAttributes(p.Attributes) != nil {
			continue
		}
		from := d.memory.own(p.Driver)
		if from == nil {
			continue
		}
		p.Driver = from.name
		if p.Attributes != nil {
			from.last = d.memory.attributesOf(p.Attributes)
		}
		if from.last != nil {
			p.Attributes = from.last.values
		}
	}
}
