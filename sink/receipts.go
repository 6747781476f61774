package sink

import (
	"context"
	"time"

	"tallyman/schema/batch"
)

// Due says which receipts somebody takes over to send.
type Due struct {
	Revision Revision
	// Cluster is the Kafka cluster, by its configured name, that they are sent to.
	Cluster string
	// Grace is how long after its announcement a batch counts as missing.
	Grace time.Duration
	// Every is how long a stream is left alone after it was looked at.
	Every time.Duration
	// Again is how long after it was sent a receipt that has not changed is sent once more.
	Again time.Duration
	// Lease is for how long nobody else is given what was taken.
	Lease time.Duration
	// Limit bounds the streams that are looked at.
	Limit int
	// All looks for streams that were announced at any time, and not only of late.
	All bool
}

// Receipts are what a warehouse owes to the sources of its streams. Any number
// of members may ask at once: each receipt is given to one of them.
type Receipts interface {
	// TakeReceipts returns receipts that are due, and how many streams it looked at.
	// A receipt is due when it says something else than the last one; or that was
	// sent some time ago, and the stream is open or something of it is missing; or
	// the stream is closed and its source has announced it once more. What is taken
	// and not noted as sent is due again when the lease ends.
	TakeReceipts(ctx context.Context, d Due) (receipts []batch.Receipt, looked int, err error)
	// ReceiptsSent notes what Kafka has acknowledged.
	ReceiptsSent(ctx context.Context, d Due, receipts []batch.Receipt) error
	// ReceiptsAge returns for how long the source that waits longest was not told how
	// its stream stands; 0: none waits. Of a closed stream all of which was told, none does.
	ReceiptsAge(ctx context.Context, d Due) (time.Duration, error)
}
