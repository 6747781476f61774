package torture

import "testing"

// A topic is deleted with batches in it that no loader has read, and made again.
// What a daemon sent comes back by itself; a file is pushed again, as one does
// who is not sure.
func TestTopicDeleted(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, start func(t *testing.T) *cluster) {
		w := newWorld(t, start(t))
		d := w.serve("web")
		l := w.load("loader", dataset)
		d.some()
		w.push(w.file(3000))
		w.loadedAll()
		l.drain()

		had := w.records()
		d.some()
		file := w.file(3000)
		w.push(file)
		w.published(d, had+few+3)
		w.kafka.deleteTopic(topic)
		w.hurt()
		w.apply()
		w.load("loader", dataset)
		d.some()
		w.push(file)
		w.healed()
	})
}

// Retention removes batches while the loader that would read them stands still.
func TestRetentionPastThePosition(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, start func(t *testing.T) *cluster) {
		w := newWorld(t, start(t))
		d := w.serve("web")
		l := w.load("loader", dataset)
		d.some()
		w.loadedAll()

		l.freeze()
		had := w.records()
		d.some()
		w.published(d, had+few)
		w.kafka.expire(topic)
		w.hurt()
		l.thaw()
		d.some()
		w.healed()
	})
}

// A broker comes back at its address with an empty disk while sources and loader run.
func TestBrokerLostItsDisk(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, start func(t *testing.T) *cluster) {
		w := newWorld(t, start(t))
		d := w.serve("web")
		l := w.load("loader", dataset)
		d.some()
		w.loadedAll()

		l.freeze()
		had := w.records()
		d.some()
		w.published(d, had+few)
		stop := d.keep()
		w.kafka.loseDisk()
		w.hurt()
		w.apply()
		l.thaw()
		d.some()
		stop()
		w.healed()
	})
}

// Somebody commits the group's offsets at the end of the topic before a loader
// has ever run. Positions come from the warehouse.
func TestOffsetsAtTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, embedded(t))
	d := w.serve("web")
	had := w.records()
	d.some()
	w.published(d, had+few)
	w.kafka.commit(group, topic)
	w.hurt()
	w.load("loader", dataset)
	w.healed()
}

// Somebody moves the warehouse's positions to the end of the topic, past
// batches that nobody has read.
func TestPositionsMovedToTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, embedded(t))
	d := w.serve("web")
	l := w.load("loader", dataset)
	d.some()
	w.loadedAll()
	l.drain()

	had := w.records()
	d.some()
	w.published(d, had+few)
	w.hurt()
	for partition, end := range w.kafka.ends(topic) {
		w.exec(`UPDATE tallyman.positions SET next_offset = $2 WHERE partition = $1`, partition, end)
	}
	w.load("loader", dataset)
	w.healed()
}

// A loader is off while retention runs over what it has not read, and sources go on.
func TestLoaderOffDuringRetention(t *testing.T) {
	t.Parallel()
	w := newWorld(t, embedded(t))
	d := w.serve("web")
	l := w.load("loader", dataset)
	d.some()
	w.loadedAll()
	l.drain()

	stop := d.keep()
	for range 3 {
		had := w.records()
		d.some()
		w.published(d, had+few)
		w.kafka.expire(topic)
	}
	w.hurt()
	w.load("loader", dataset)
	d.some()
	stop()
	w.healed()
}

// Another cluster takes over, without what the first one held: sources and
// loaders are started with its address and its name. Later the first one's
// batches come as well.
func TestAnotherCluster(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, start func(t *testing.T) *cluster) {
		w := newWorld(t, start(t))
		d := w.serve("web")
		l := w.load("loader", dataset)
		d.some()
		w.loadedAll()
		l.drain()

		had := w.records()
		d.some()
		file := w.file(3000)
		w.push(file)
		w.published(d, had+few+3)
		d.drain()
		w.kafka.stop()
		w.hurt()

		second := start(t)
		there := w.with("KAFKA_BROKERS="+second.Addr(), "TALLYMAN_KAFKA_CLUSTER=second")
		there.kafka = second
		there.apply()
		there.load("second", dataset)
		d.startWith(there)
		d.some()
		there.push(file)
		there.healed()

		w.kafka.start()
		w.load("loader", dataset)
		w.connect()
		w.until("the first cluster is read to its end", func() bool {
			return w.count(`SELECT sum(next_offset)::bigint FROM tallyman.positions WHERE cluster = 'default'`) >= w.records()
		})
		there.healed()
	})
}
