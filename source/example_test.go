package source_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"

	"tallyman/internal/sandbox"
	"tallyman/schema"
	"tallyman/schema/rows"
	"tallyman/source"
)

func Example() {
	if err := run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// durable
	// row 2, column "amount": a Go value of type string, want int64 or another integer
	// published
}

// run appends some rows to a dataset and publishes them.
func run(ctx context.Context) error {
	brokers, stop, err := startKafka(ctx)
	if err != nil {
		return err
	}
	defer stop()

	manifest, err := schema.ParseManifest([]byte(`
dataset: shop/orders
topic: orders
columns:
  - {name: order_id, type: uuid}
  - {name: ordered_at, type: timestamptz}
  - {name: amount, type: int64}
  - {name: note, type: text, nullable: true}
`))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "orders") // a real service keeps its directory
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	orders, err := source.Open(ctx, source.Config{
		Manifest: manifest, Kafka: source.Kafka{Brokers: brokers}, Dir: dir, Name: "shop-1",
	})
	if err != nil {
		return err
	}
	defer func() { _ = orders.Close() }()

	// Values come in the manifest's order. Append returns when they are on disk.
	now := time.Now()
	err = orders.Append(ctx, [][]any{
		{uuid.New(), now, 1999, "by courier"},
		{uuid.New(), now, 250, nil},
	})
	if err != nil {
		return err
	}
	fmt.Println("durable")

	// A row that can't be encoded refuses its call, and nothing of it is kept.
	err = orders.Append(ctx, [][]any{
		{uuid.New(), now, 1200, nil},
		{uuid.New(), now, "12 euros", nil},
	})
	var bad *rows.Error
	if errors.As(err, &bad) {
		fmt.Println(bad)
	}

	// Publishing goes on in the background; Flush waits until Kafka has everything.
	if err := orders.Flush(ctx); err != nil {
		return err
	}
	fmt.Println("published")
	return nil
}

// startKafka stands in for the cluster that you have.
func startKafka(ctx context.Context) (brokers []string, stop func(), err error) {
	broker, err := sandbox.StartBroker(ctx, sandbox.BrokerConfig{})
	if err != nil {
		return nil, nil, err
	}
	if err := broker.CreateTopic("orders", 4, nil); err != nil {
		return nil, nil, err
	}
	return broker.Addrs(), func() { _ = broker.Close() }, nil
}
