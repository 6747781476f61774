package load

import (
	"context"
	"fmt"

	"tallyman/loader"
	"tallyman/sink"
)

// fencedWarehouse gives positions only to a member of the job's present epoch.
//
// When an epoch ends, the eras of its positions rise in the same transaction: what
// a member still has in flight is refused. That member then asks for the positions
// anew. The job is asked after they were read, so that an end of the epoch that the
// answer does not show raises the eras beyond those that were read.
type fencedWarehouse struct {
	loader.Warehouse
	check func(context.Context) error
}

// Assign implements sink.Positions.
func (f fencedWarehouse) Assign(ctx context.Context, r sink.Revision, ps []sink.Partition) ([]sink.Position, error) {
	positions, err := f.Warehouse.Assign(ctx, r, ps)
	if err == nil {
		err = current(ctx, f.check)
	}
	if err != nil {
		return nil, err
	}
	return positions, nil
}

// fencedRedriver finds nothing to try again for a member of an epoch that is over.
type fencedRedriver struct {
	sink.Redriver
	check func(context.Context) error
}

// Redrivable implements sink.Redriver.
func (f fencedRedriver) Redrivable(ctx context.Context, r sink.Revision, limit int) ([]sink.KeptKey, error) {
	if err := current(ctx, f.check); err != nil {
		return nil, err
	}
	return f.Redriver.Redrivable(ctx, r, limit)
}

// current returns an error that is waited out: whoever holds the member's lease
// learns the same and ends it.
func current(ctx context.Context, check func(context.Context) error) error {
	if err := check(ctx); err != nil {
		return &sink.Error{Class: sink.Retryable, Err: fmt.Errorf("this member may not load: %w", err)}
	}
	return nil
}
