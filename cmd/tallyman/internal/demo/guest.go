package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/segmentio/kafka-go"

	"tallyman/internal/kafkaconn"
	"tallyman/schema"
	"tallyman/schema/batch"
)

// guest is a demo on servers of the user's. Whatever it makes there bears its
// name, and goes when it leaves.
type guest struct {
	name     string // tallyman_demo_ and something random
	url      string
	kafka    *kafkaconn.Conn
	manifest schema.Manifest
	// host says that the warehouse had no schema tallyman, and that init made one.
	host bool
	// hostTopic says that the cluster had no topic of receipts.
	hostTopic bool
	// receipts are the keys of what was written on it.
	receipts [][]byte
}

const (
	hasSchemaSQL = `SELECT to_regnamespace('tallyman') IS NOT NULL`

	initialisedSQL = `SELECT to_regclass('tallyman.datasets') IS NOT NULL`

	receiptsSQL = `
SELECT DISTINCT convert_to(t.name || '/' || $2 || '/' || s.incarnation, 'UTF8')
FROM tallyman.streams s, tallyman.target t
WHERE s.revision_id = ANY($1)`

	revisionsSQL = `SELECT revision_id FROM tallyman.revisions WHERE dataset = $1`

	// Every table that keeps something of a revision, whichever release made it;
	// revisions itself goes last, since others may refer to it.
	ownedTablesSQL = `
SELECT c.oid::regclass::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'tallyman'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND a.attname = 'revision_id' AND NOT a.attisdropped
ORDER BY c.relname = 'revisions', c.relname`

	forgetDatasetSQL = `DELETE FROM tallyman.datasets WHERE dataset = $1`

	othersSQL = `SELECT EXISTS (SELECT FROM tallyman.datasets)`

	dropHostSQL = `DROP SCHEMA IF EXISTS tallyman CASCADE`
)

// beGuest looks at the user's servers and takes names there. It says whether
// the warehouse has to be initialised.
func (d *Demo) beGuest(ctx context.Context) (bool, error) {
	s := d.config.Servers
	random := make([]byte, 4)
	if _, err := rand.Read(random); err != nil {
		return false, fmt.Errorf("make a name: %w", err)
	}
	conn, err := kafkaconn.New(s.Kafka)
	if err != nil {
		return false, err
	}
	d.kafka = conn
	name := "tallyman_demo_" + hex.EncodeToString(random)
	d.manifest.Dataset.Namespace = name
	d.manifest.Topic = name + "." + d.manifest.Dataset.Name
	d.manifest.Table.Schema = name
	if err := conn.APICheck(ctx); err != nil {
		return false, err
	}
	g := &guest{name: name, url: s.URL, kafka: conn, manifest: d.manifest}
	db, err := pgx.Connect(ctx, s.URL)
	if err != nil {
		return false, fmt.Errorf("connect to the warehouse: %w", err)
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	var initialised bool
	if err := db.QueryRow(ctx, hasSchemaSQL).Scan(&initialised); err != nil {
		return false, fmt.Errorf("look for the schema tallyman: %w", err)
	}
	g.host = !initialised
	topics, err := conn.Topics(ctx, batch.ReceiptsTopic)
	if err != nil {
		return false, err
	}
	g.hostTopic = len(topics) == 0
	d.guest = g
	line := fmt.Sprintf("for the time of the demo there are the dataset %s, the topic %s and the schema %s", d.manifest.Dataset, d.manifest.Topic, name)
	if g.host {
		line += ", and the schema tallyman, which the warehouse did not have"
	}
	d.config.Progress.Note(line)
	return g.host, nil
}

// LeftError says what a demo could not remove from the user's servers.
type LeftError struct{ Err error }

// Error returns a line for each thing that is left.
func (e *LeftError) Error() string { return e.Err.Error() }

// Unwrap returns why it is left.
func (e *LeftError) Unwrap() error { return e.Err }

// leaveLimit is how long removing everything may take.
const leaveLimit = 60 * time.Second

// leave removes everything, whatever ended the demo. The error says what is left.
func (g *guest) leave() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), leaveLimit, fmt.Errorf("no end in %v", leaveLimit))
	defer cancel()
	groups, fromWarehouse := g.leaveWarehouse(ctx)
	if err := errors.Join(fromWarehouse, g.leaveKafka(ctx, groups)); err != nil {
		return &LeftError{err}
	}
	return nil
}

// leaveWarehouse removes table, view and every entry, and returns the names of
// the consumer groups that read for them.
func (g *guest) leaveWarehouse(ctx context.Context) (groups []string, err error) {
	defer func() {
		if err != nil {
			left := "the schema " + g.name + " and the dataset " + g.manifest.Dataset.String() + " are left in the warehouse"
			if g.host {
				left += ", and so may be the schema tallyman"
			}
			err = fmt.Errorf("%s: %w", left, err)
		}
	}()
	conn, err := pgx.Connect(ctx, g.url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	return groups, pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{g.name}.Sanitize()+" CASCADE"); err != nil {
			return err
		}
		var initialised, others bool
		if err := tx.QueryRow(ctx, initialisedSQL).Scan(&initialised); err != nil {
			return err
		}
		if initialised {
			revisions, err := g.forget(ctx, tx)
			if err != nil {
				return err
			}
			for _, r := range revisions {
				groups = append(groups, fmt.Sprintf("tallyman.%s.%s.r%d", g.manifest.Dataset.Namespace, g.manifest.Dataset.Name, r))
			}
			if err := tx.QueryRow(ctx, othersSQL).Scan(&others); err != nil {
				return err
			}
		}
		if others { // somebody has begun to use what was made
			g.host, g.hostTopic = false, false
		}
		if !g.host {
			return nil
		}
		_, err := tx.Exec(ctx, dropHostSQL)
		return err
	})
}

// forget removes what the schema tallyman has of the dataset.
func (g *guest) forget(ctx context.Context, tx pgx.Tx) ([]int64, error) {
	dataset := g.manifest.Dataset.String()
	rows, _ := tx.Query(ctx, revisionsSQL, dataset) // its error comes with the rows
	revisions, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, err
	}
	rows, _ = tx.Query(ctx, receiptsSQL, revisions, dataset)
	if g.receipts, err = pgx.CollectRows(rows, pgx.RowTo[[]byte]); err != nil {
		return nil, err
	}
	rows, _ = tx.Query(ctx, ownedTablesSQL)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	for _, table := range tables {
		if _, err := tx.Exec(ctx, "DELETE FROM "+table+" WHERE revision_id = ANY($1)", revisions); err != nil {
			return nil, err
		}
	}
	_, err = tx.Exec(ctx, forgetDatasetSQL, dataset)
	return revisions, err
}

// leaveKafka removes topics, receipts and consumer groups.
func (g *guest) leaveKafka(ctx context.Context, groups []string) error {
	all := []error{g.deleteTopic(ctx, g.manifest.Topic)}
	if g.hostTopic {
		all = append(all, g.deleteTopic(ctx, batch.ReceiptsTopic))
	} else if err := g.deleteReceipts(ctx); err != nil {
		all = append(all, fmt.Errorf("receipts of %s are left on the topic %s: %w", g.manifest.Dataset, batch.ReceiptsTopic, err))
	}
	if len(groups) == 0 {
		return errors.Join(all...)
	}
	if err := g.deleteGroups(ctx, groups); err != nil {
		all = append(all, fmt.Errorf("the consumer group %s is left: %w", strings.Join(groups, ", "), err))
	}
	return errors.Join(all...)
}

func (g *guest) deleteTopic(ctx context.Context, name string) error {
	answer, err := g.kafka.Client().DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{name}})
	if err == nil {
		err = answer.Errors[name]
	}
	if err == nil || errors.Is(err, kafka.UnknownTopicOrPartition) {
		return nil
	}
	return fmt.Errorf("the topic %s is left: %w", name, err)
}

// topicPatience is longer than a topic that was made a moment ago is unknown.
const topicPatience = 5 * time.Second

// deleteReceipts has compaction drop what the demo's sources were told.
func (g *guest) deleteReceipts(ctx context.Context) error {
	if len(g.receipts) == 0 {
		return nil
	}
	w := &kafka.Writer{Addr: g.kafka.Addr(), Topic: batch.ReceiptsTopic, Transport: g.kafka.Transport(), Balancer: &kafka.Hash{}, RequiredAcks: kafka.RequireAll}
	var tombstones []kafka.Message
	for _, key := range g.receipts {
		tombstones = append(tombstones, kafka.Message{Key: key})
	}
	for deadline := time.Now().Add(topicPatience); ; time.Sleep(groupPause) {
		err := w.WriteMessages(ctx, tombstones...)
		if errors.Is(err, kafka.UnknownTopicOrPartition) {
			if time.Now().Before(deadline) {
				continue
			}
			err = nil // there is none
		}
		return errors.Join(err, w.Close())
	}
}

// groupPause is how long a group is left alone that still has a member, which
// a loader that was killed is until its session times out.
const groupPause = 500 * time.Millisecond

func (g *guest) deleteGroups(ctx context.Context, groups []string) error {
	for {
		answer, err := g.kafka.Client().DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: groups})
		if err != nil {
			return err
		}
		for _, group := range groups {
			if e := answer.Errors[group]; e != nil && !errors.Is(e, kafka.GroupIdNotFound) {
				err = e
			}
		}
		if !errors.Is(err, kafka.NonEmptyGroup) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(groupPause):
		}
	}
}
