package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"dray"
)

type reserveRequest order

func (in *reserveRequest) read(q *request) (err error) {
	var w wireOrder
	if err := q.body(&w); err != nil {
		return err
	}
	if err := w.readCart((*order)(in)); err != nil {
		return err
	}
	in.options.Key, err = q.key()
	return err
}

type reservationReply struct{ *dray.Reservation }

func (reservationReply) name() string { return "reservation" }

// newReservation is the reply that says where the reservation is.
type newReservation struct{ reservationReply }

func (out newReservation) head(h http.Header) int {
	h.Set("Location", "/v1/reservations/"+out.Reservation.Reservation)
	return http.StatusCreated
}

// reserve is POST /v1/reservations, and the message reserve.
func (s *Server) reserve(ctx context.Context, who Caller, in reserveRequest) (out newReservation, err error) {
	if !who.MayReserve() {
		return out, dray.ErrForbidden
	}
	in.options.By = who.Name()
	var r dray.Reservation
	if in.near != nil {
		r, err = s.stock.ReserveNear(ctx, in.near.Center(), in.near.Radius, in.items, in.ttl, in.options)
	} else {
		r, err = s.stock.Reserve(ctx, in.location, in.items, in.ttl, in.options)
	}
	return newReservation{reservationReply{&r}}, err
}

type reservationRequest order

func (in *reservationRequest) read(q *request) (err error) {
	if in.reservation, err = q.serverID("reservation"); err != nil {
		return err
	}
	text, err := q.value("replicas")
	if err != nil || text == "" {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > dray.MaxReplicas {
		return notReplicas()
	}
	in.options.Replicas = n
	return nil
}

// getReservation is GET /v1/reservations/{reservation}.
func (s *Server) getReservation(ctx context.Context, who Caller, in reservationRequest) (out reservationReply, err error) {
	if !who.MayReserve() {
		return out, dray.ErrForbidden
	}
	r, err := s.stock.Reservation(ctx, in.reservation, in.options)
	return reservationReply{&r}, err
}

type partRequest order

func (in *partRequest) read(q *request) error { return (*order)(in).readPost(q, (*wireOrder).readPart) }

// readPost reads what is asked of the path's {reservation}, by a body that may be left out.
func (o *order) readPost(q *request, read func(*wireOrder, *order) error) (err error) {
	var w wireOrder
	if o.reservation, err = q.serverID("reservation"); err != nil {
		return err
	}
	if q.text != nil {
		if err := q.body(&w); err != nil {
			return err
		}
	}
	if err := read(&w, o); err != nil {
		return err
	}
	o.options.Key, err = q.key()
	return err
}

// commitReservation is POST /v1/reservations/{reservation}/commit, and the message commit.
func (s *Server) commitReservation(ctx context.Context, who Caller, in partRequest) (out reservationReply, err error) {
	if !who.MayReserve() {
		return out, dray.ErrForbidden
	}
	in.options.By = who.Name()
	r, err := s.stock.Commit(ctx, in.reservation, in.items, in.options)
	return reservationReply{&r}, err
}

// releaseReservation is POST /v1/reservations/{reservation}/release, and the message release.
func (s *Server) releaseReservation(ctx context.Context, who Caller, in partRequest) (out reservationReply, err error) {
	if !who.MayReserve() {
		return out, dray.ErrForbidden
	}
	in.options.By = who.Name()
	r, err := s.stock.Release(ctx, in.reservation, in.items, in.options)
	return reservationReply{&r}, err
}

type extendRequest order

func (in *extendRequest) read(q *request) error {
	return (*order)(in).readPost(q, (*wireOrder).readExtend)
}

// extendReservation is POST /v1/reservations/{reservation}/extend, and the message extend.
func (s *Server) extendReservation(ctx context.Context, who Caller, in extendRequest) (out reservationReply, err error) {
	if !who.MayReserve() {
		return out, dray.ErrForbidden
	}
	in.options.By = who.Name()
	r, err := s.stock.Extend(ctx, in.reservation, in.ttl, in.options)
	return reservationReply{&r}, err
}

type reservationLedgerRequest struct{ pageRequest }

func (in *reservationLedgerRequest) read(q *request) (err error) {
	if in.reservation, err = q.serverID("reservation"); err != nil {
		return err
	}
	return in.pageRequest.read(q)
}

// getReservationLedger is GET /v1/reservations/{reservation}/ledger.
func (s *Server) getReservationLedger(ctx context.Context, who Caller, in reservationLedgerRequest) (out ledgerPage, err error) {
	if !who.MayReserve() {
		return out, dray.ErrForbidden
	}
	entries, next, err := s.stock.ReservationLedger(ctx, in.reservation, in.cursor, in.limit)
	return ledgerPage{"entries", entries, next}, err
}
