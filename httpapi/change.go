package httpapi

import (
	"dray"
	"dray/realtime/watch"
)

// A changeText is the message of a Change, a snapshot or a delta, made a piece at a time: one
// message of several frames. The objects of drivers are shared by all subscriptions, so what
// a connection holds of a large set is one piece and the list of what is in it. The zero
// changeText has no more.
type changeText struct {
	change *watch.Change // nil when all of it was made
	id     []byte
	server *Server
	list   int // 0 left, 1 entered, 2 moved
	next   int // of that list
	begun  bool
	sent   int // bytes written of the message, and with it
}

func (s *Server) changeText(id []byte, change *watch.Change) changeText {
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
	if x.change.Snapshot {
		m.frame(frameSnapshot)
		b = append(b, `{"type":"snapshot","id":`...)
	} else {
		m.frame(frameDelta)
		b = append(b, `{"type":"delta","id":`...)
	}
	now := x.server.cfg.Now().UnixMilli()
	b = append(b, x.id...)
	b = appendInt(b, `,"version":`, int64(x.change.Version))
	b = appendInt(b, `,"serverTime":`, now)
	if len(x.change.Moved) > 0 {
		m.delivered(x.change.Moved[0], now)
	}
	return b
}

// count is the length of a list. A snapshot has one list.
func (x *changeText) count(list int) int {
	c := x.change
	switch {
	case c.Snapshot && list != 1:
		return 0
	case list == 0:
		return len(c.Left)
	case list == 1:
		return len(c.Entered)
	}
	return len(c.Moved)
}

// appendList appends of the current list what there is room for, its brackets, and goes on
// to the next when it ends. A list that is empty is left out, but in a snapshot.
func (x *changeText) appendList(b []byte) []byte {
	if n := x.count(x.list); n > 0 || x.change.Snapshot && x.list == 1 {
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
	for x.list <= 2 && x.count(x.list) == 0 && (!x.change.Snapshot || x.list != 1) {
		x.list++
	}
	return b
}

func (x *changeText) open() string {
	switch {
	case x.change.Snapshot:
		return `,"drivers":[`
	case x.list == 0:
		return `,"left":[`
	case x.list == 1:
		return `,"entered":[`
	}
	return `,"moved":[`
}

func (x *changeText) appendItem(b []byte) []byte {
	switch x.list {
	case 0:
		leave := &x.change.Left[x.next]
		b = dray.AppendString(append(b, `{"driver":`...), leave.Driver)
		b = dray.AppendString(append(b, `,"reason":`...), string(leave.Reason))
		return append(b, '}')
	case 1:
		return append(b, x.change.Entered[x.next]...)
	}
	return append(b, x.change.Moved[x.next]...)
}
