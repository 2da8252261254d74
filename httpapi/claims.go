package httpapi

import (
	"context"
	"time"

	"dray"
)

// claims is a claim.Store.
type claims interface {
	Claim(ctx context.Context, caller string, r dray.ClaimRequest) (dray.Claim, error)
	Unclaim(ctx context.Context, id string) error
	Held(ctx context.Context, drivers ...string) (map[string]time.Duration, error)
}

var errNoClaims = dray.Errorf(dray.CodeNotFound, "claims are not served here")

// makeClaim is what POST /v1/claims and the message claim ask for.
func (s *Server) makeClaim(ctx context.Context, who Caller, r dray.ClaimRequest) (*dray.Claim, error) {
	if !who.MayClaim() {
		return nil, dray.ErrForbidden
	}
	if s.claims == nil {
		return nil, errNoClaims
	}
	c, err := s.claims.Claim(ctx, who.Name(), r)
	return &c, err
}

// endClaim is what DELETE /v1/claims/{claim} and the message unclaim ask for.
func (s *Server) endClaim(ctx context.Context, who Caller, id string) error {
	if !who.MayClaim() {
		return dray.ErrForbidden
	}
	if s.claims == nil {
		return errNoClaims
	}
	return s.claims.Unclaim(ctx, id)
}

type claimRequest struct{ *dray.ClaimRequest }

func (in *claimRequest) read(q *request) (err error) {
	var w wireMessage
	if err := q.body(&w); err != nil {
		return err
	}
	w.Key = nil // it comes in the header
	if in.ClaimRequest, err = w.readClaim(); err != nil {
		return err
	}
	in.Key, err = q.key()
	return err
}

// postClaim is POST /v1/claims.
func (s *Server) postClaim(ctx context.Context, who Caller, in claimRequest) (*dray.Claim, error) {
	return s.makeClaim(ctx, who, *in.ClaimRequest)
}

type unclaimRequest struct{ claim string }

func (in *unclaimRequest) read(q *request) (err error) {
	in.claim, err = q.serverID("claim")
	return err
}

// deleteClaim is DELETE /v1/claims/{claim}.
func (s *Server) deleteClaim(ctx context.Context, who Caller, in unclaimRequest) (none, error) {
	return none{}, s.endClaim(ctx, who, in.claim)
}

// readClaim reads a claim; count may be left out.
func (w *wireMessage) readClaim() (*dray.ClaimRequest, error) {
	var m message
	if err := w.readPlace(&m); err != nil {
		return nil, err
	}
	r := new(dray.ClaimRequest)
	r.Latitude, r.Longitude, r.Radius, r.Filter = m.center.Latitude, m.center.Longitude, m.radius, m.filter
	count, ok := int64(1), true
	if !absent(w.Count) {
		count, ok = integer(w.Count)
	}
	if !ok || count < 1 || count > dray.MaxClaimed {
		return nil, dray.FieldError(dray.CodeBadRequest, "count", "must be an integer from 1 to %d", dray.MaxClaimed)
	}
	most := int64(dray.MaxClaimTTL / time.Second)
	seconds, ok := integer(w.TTL)
	if !ok || seconds < 1 || seconds > most {
		return nil, dray.FieldError(dray.CodeBadRequest, "ttlSeconds", "must be an integer from 1 to %d", most)
	}
	r.Count, r.TTL = int(count), time.Duration(seconds)*time.Second
	if !absent(w.Key) {
		if readString("key", w.Key, &r.Key) != nil || !validKey(r.Key) {
			return nil, notKey("key")
		}
	}
	return r, nil
}

// readUnclaim reads which claim is to end.
func (w *wireMessage) readUnclaim(m *message) error {
	if readString("claim", w.Claim, &m.ended) != nil || !dray.ValidServerID(m.ended) {
		return notServerID("claim")
	}
	return nil
}

func (c *conn) claim(m *message) error {
	ctx, cancel := c.within()
	defer cancel()
	made, err := c.s.makeClaim(ctx, c.caller, *m.claim)
	if err != nil {
		return err
	}
	c.answer(frameResult, func(b []byte) []byte {
		b = append(append(b, `{"type":"result","id":`...), m.id...)
		return append(made.AppendJSON(append(b, `,"claim":`...)), '}')
	})
	return nil
}

func (c *conn) unclaim(m *message) error {
	ctx, cancel := c.within()
	defer cancel()
	if err := c.s.endClaim(ctx, c.caller, m.ended); err != nil {
		return err
	}
	c.ok(m.id)
	return nil
}
