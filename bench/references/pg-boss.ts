/**
 * pg-boss with the batch settings recommended for throughput in its documentation, and a result
 * stored with each job.
 */
import { PgBoss } from "pg-boss";
import { answerQuestions } from "../lib/children.ts";

type Question =
  | { kind: "prepare"; url: string; jobs: number }
  | { kind: "throughput"; url: string; jobs: number }
  | { kind: "latency"; url: string; gapsMs: number[] };

const queue = "noop";
const workers = 4;
const batch = 500;
const shortestPollSeconds = 0.5;

async function open(url: string): Promise<PgBoss> {
  const boss = new PgBoss({ connectionString: url, max: 10 });
  boss.on("error", (error) => console.error(error));
  await boss.start();
  return boss;
}

/** Adds the jobs, 5,000 in a call. */
async function prepare({ url, jobs }: Extract<Question, { kind: "prepare" }>) {
  const boss = await open(url);
  await boss.createQueue(queue);
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  for (let at = 0; at < jobs; at += 5_000) {
    await boss.insert(
      queue,
      Array.from({ length: Math.min(5_000, jobs - at) }, (_, index) => ({ data: { id: at + index } })),
    );
  }
  const answer = { seconds: (performance.now() - startedAt) / 1_000, cpuSeconds: cpuSince(cpu) };
  await boss.stop({ graceful: false });
  return answer;
}

function cpuSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

async function throughput({ url, jobs }: Extract<Question, { kind: "throughput" }>) {
  const boss = await open(url);
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  let done = 0;
  let finish: () => void;
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  await boss.work(
    queue,
    {
      batchSize: batch,
      localConcurrency: workers,
      pollingIntervalSeconds: shortestPollSeconds,
      burstWhenBatchFull: true,
      perJobResults: true,
    },
    async (taken) => {
      done += taken.length;
      if (done >= jobs) setImmediate(finish);
      return taken.map(({ id }) => ({ id, status: "completed" as const, output: { output: "done" } }));
    },
  );
  await finished;
  // Ends once the last batch is stored.
  await boss.offWork(queue, { wait: true });
  const seconds = (performance.now() - startedAt) / 1_000;
  const used = cpuSince(cpu);
  await boss.stop({ graceful: false });
  return { seconds, cpuSeconds: used };
}

async function latency({ url, gapsMs }: Extract<Question, { kind: "latency" }>): Promise<number[]> {
  const boss = await open(url);
  await boss.createQueue(queue, { notify: true });
  const waits: number[] = [];
  let finish: () => void;
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  await boss.work(
    queue,
    { batchSize: 100, localConcurrency: workers, pollingIntervalSeconds: shortestPollSeconds },
    async (taken) => {
      for (const { data } of taken) waits.push(performance.now() - (data as { at: number }).at);
      if (waits.length >= gapsMs.length) finish();
    },
  );
  let at = performance.now();
  for (const gap of gapsMs) {
    at += gap;
    const leftMs = at - performance.now();
    if (leftMs > 0) await new Promise((resolve) => setTimeout(resolve, leftMs));
    void boss.send(queue, { at: performance.now() });
  }
  await finished;
  await boss.stop({ graceful: false });
  return waits;
}

answerQuestions((question: Question) => {
  if (question.kind === "prepare") return prepare(question);
  return question.kind === "throughput" ? throughput(question) : latency(question);
});
