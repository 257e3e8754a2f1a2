// River with what its documentation recommends for speed: InsertManyFast, many workers, and the shortest pause between
// fetches that it takes. It reads one question a line from its input, and answers each with a line.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const (
	workers        = 500
	connectionsMax = 28
	jobsPerInsert  = 5_000
)

type question struct {
	Kind   string    `json:"kind"`
	URL    string    `json:"url"`
	Jobs   int       `json:"jobs"`
	GapsMs []float64 `json:"gapsMs"`
}

type noop struct {
	ID int   `json:"id"`
	At int64 `json:"at"`
}

func (noop) Kind() string { return "noop" }

type worker struct {
	river.WorkerDefaults[noop]
	work func(ctx context.Context, job noop) error
}

func (w *worker) Work(ctx context.Context, job *river.Job[noop]) error { return w.work(ctx, job.Args) }

func open(ctx context.Context, url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = connectionsMax
	return pgxpool.NewWithConfig(ctx, config)
}

func newClient(pool *pgxpool.Pool, work func(context.Context, noop) error) (*river.Client[pgx.Tx], error) {
	all := river.NewWorkers()
	river.AddWorker(all, &worker{work: work})
	return river.NewClient(riverpgxv5.New(pool), &river.Config{
		FetchCooldown: river.FetchCooldownMin,
		Logger:        slog.New(slog.NewTextHandler(io.Discard, nil)),
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: workers}},
		Workers:       all,
	})
}

// prepare makes the schema, the table of results and the jobs.
func prepare(ctx context.Context, q question) (any, error) {
	pool, err := open(ctx, q.URL)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		return nil, err
	}
	if _, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	if _, err = pool.Exec(ctx, "create table if not exists result (id bigint primary key, output text not null)"); err != nil {
		return nil, err
	}
	client, err := newClient(pool, func(context.Context, noop) error { return nil })
	if err != nil {
		return nil, err
	}
	started, cpu := time.Now(), cpuSeconds()
	for at := 0; at < q.Jobs; at += jobsPerInsert {
		params := make([]river.InsertManyParams, min(jobsPerInsert, q.Jobs-at))
		for index := range params {
			params[index].Args = noop{ID: at + index}
		}
		if _, err = client.InsertManyFast(ctx, params); err != nil {
			return nil, err
		}
	}
	answer := map[string]float64{"seconds": time.Since(started).Seconds(), "cpuSeconds": cpuSeconds() - cpu}
	_, err = pool.Exec(ctx, "vacuum analyze")
	return answer, err
}

// throughput works all jobs; each leaves its result in a row.
func throughput(ctx context.Context, q question) (any, error) {
	pool, err := open(ctx, q.URL)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	var done atomic.Int64
	finished := make(chan struct{})
	client, err := newClient(pool, func(ctx context.Context, job noop) error {
		_, err := pool.Exec(ctx, "insert into result (id, output) values ($1, 'done')", job.ID)
		if err == nil && done.Add(1) == int64(q.Jobs) {
			close(finished)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	started, cpu := time.Now(), cpuSeconds()
	if err = client.Start(ctx); err != nil {
		return nil, err
	}
	<-finished
	// Ends once the last batch of completions is stored.
	if err = client.Stop(ctx); err != nil {
		return nil, err
	}
	return map[string]float64{"seconds": time.Since(started).Seconds(), "cpuSeconds": cpuSeconds() - cpu}, nil
}

// latency answers, for each job, the milliseconds from the call that inserts it to its start.
func latency(ctx context.Context, q question) (any, error) {
	if _, err := prepare(ctx, question{URL: q.URL}); err != nil {
		return nil, err
	}
	pool, err := open(ctx, q.URL)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	var mutex sync.Mutex
	waits := make([]float64, 0, len(q.GapsMs))
	finished := make(chan struct{})
	client, err := newClient(pool, func(_ context.Context, job noop) error {
		waited := float64(time.Now().UnixNano()-job.At) / 1e6
		mutex.Lock()
		defer mutex.Unlock()
		if waits = append(waits, waited); len(waits) == len(q.GapsMs) {
			close(finished)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err = client.Start(ctx); err != nil {
		return nil, err
	}
	at := time.Now()
	failed := make(chan error, 1)
	for _, gapMs := range q.GapsMs {
		at = at.Add(time.Duration(gapMs * float64(time.Millisecond)))
		time.Sleep(time.Until(at))
		go func() {
			if _, err := client.Insert(ctx, noop{At: time.Now().UnixNano()}, nil); err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		}()
	}
	select {
	case <-finished:
	case err = <-failed:
		return nil, err
	}
	return waits, client.Stop(ctx)
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

func main() {
	answers := json.NewEncoder(os.Stdout)
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	kinds := map[string]func(context.Context, question) (any, error){
		"prepare": prepare, "throughput": throughput, "latency": latency,
	}
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var q question
		var answer any
		if err = json.Unmarshal(line, &q); err == nil {
			answer, err = kinds[q.Kind](context.Background(), q)
		}
		if err != nil {
			_ = answers.Encode(map[string]string{"error": err.Error()})
		} else {
			_ = answers.Encode(map[string]any{"answer": answer})
		}
	}
}
