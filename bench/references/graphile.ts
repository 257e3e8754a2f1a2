/**
 * graphile-worker as in its documentation: plain, and with its local queue and batched completions.
 */
import { addJobAdhoc, Logger, type Runner, type RunnerOptions, run } from "graphile-worker";
import pg from "pg";
import { answerQuestions } from "../lib/children.ts";

type Mode = "plain" | "local queue";
type Question =
  | { kind: "prepare"; url: string; jobs: number }
  | { kind: "throughput"; url: string; mode: Mode; jobs: number }
  | { kind: "latency"; url: string; gapsMs: number[] };

const concurrency = 24;
const localQueueSize = 500;
/** The starting value recommended by graphile-worker's documentation. */
const completeBatchDelayMs = 250;
const logger = new Logger(() => () => {});

const optionsOf: Record<Mode, Partial<RunnerOptions>> = {
  plain: {},
  "local queue": {
    preset: {
      worker: {
        localQueue: { size: localQueueSize },
        completeJobBatchDelay: completeBatchDelayMs,
        failJobBatchDelay: completeBatchDelayMs,
      },
    },
  },
};

async function start(pool: pg.Pool, mode: Mode, task: (payload: unknown) => Promise<void>): Promise<Runner> {
  return run({
    pgPool: pool,
    concurrency,
    noHandleSignals: true,
    pollInterval: 1_000,
    logger,
    taskList: { noop: task },
    ...optionsOf[mode],
  } as RunnerOptions);
}

function openPool(url: string): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, max: concurrency + 4 });
  pool.on("error", () => {});
  pool.on("connect", (client) => client.on("error", () => {}));
  return pool;
}

/** Each job stores its result in a row. */
const resultTable = "create table if not exists result (id bigint primary key, output text not null)";

/** Adds the jobs, many per statement with graphile-worker's own function. */
async function prepare({ url, jobs }: Extract<Question, { kind: "prepare" }>) {
  const pool = openPool(url);
  await pool.query(resultTable);
  // Creates the schema of graphile-worker.
  const first = await start(pool, "plain", async () => {});
  await first.stop();
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  await pool.query(
    `select graphile_worker.add_jobs(array_agg(json_populate_record(null::graphile_worker.job_spec,
      json_build_object('identifier', 'noop', 'payload', json_build_object('id', i)))))
    from generate_series(1, $1::int) i`,
    [jobs],
  );
  const answer = { seconds: (performance.now() - startedAt) / 1_000, cpuSeconds: cpuSince(cpu) };
  await pool.query("vacuum analyze");
  await pool.end();
  return answer;
}

function cpuSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

async function throughput({ url, mode, jobs }: Extract<Question, { kind: "throughput" }>) {
  const pool = openPool(url);
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  let done = 0;
  let finish: () => void;
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const runner = await start(pool, mode, async (payload) => {
    await pool.query("insert into result (id, output) values ($1, 'done')", [(payload as { id: number }).id]);
    if (++done === jobs) finish();
  });
  await finished;
  await runner.stop();
  const seconds = (performance.now() - startedAt) / 1_000;
  const used = cpuSince(cpu);
  await pool.end();
  return { seconds, cpuSeconds: used };
}

async function latency({ url, gapsMs }: Extract<Question, { kind: "latency" }>): Promise<number[]> {
  const pool = openPool(url);
  const waits: number[] = [];
  let finish: () => void;
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const runner = await start(pool, "plain", async (payload) => {
    waits.push(performance.now() - (payload as { at: number }).at);
    if (waits.length === gapsMs.length) finish();
  });
  let at = performance.now();
  for (const gap of gapsMs) {
    at += gap;
    const leftMs = at - performance.now();
    if (leftMs > 0) await new Promise((resolve) => setTimeout(resolve, leftMs));
    void addJobAdhoc({ pgPool: pool, logger }, "noop", { at: performance.now() });
  }
  await finished;
  await runner.stop();
  await pool.end();
  return waits;
}

answerQuestions((question: Question) => {
  if (question.kind === "prepare") return prepare(question);
  return question.kind === "throughput" ? throughput(question) : latency(question);
});
