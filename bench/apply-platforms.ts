/**
 * Measures `pinion apply` with many platforms: one call per platform (the former way) and calls of
 * a hundred platforms, in one run on one machine. Prints platforms per second of both ways and
 * their ratio, and the times of a whole apply, the first and a repeated one. `npx node
 * bench/apply-platforms.ts [platforms]`
 */
import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClients } from "@pinion/client";
import { upsertPlatform } from "../src/cli/apply/execute/requests.ts";
import { desiredOf } from "../src/cli/apply/file/desired.ts";
import { parseFile } from "../src/cli/apply/file/file.ts";
import { applyPlan, planFile } from "../src/cli/apply/run.ts";
import { replicaConfig } from "../src/config.ts";
import { startReplica } from "../src/replica/replica.ts";
import { startEmbedded } from "../src/store/pg/embedded/cluster.ts";

const count = Number(process.argv[2] ?? 10_000);
/** Enough to know a rate. */
const sampleMax = 1_000;
const lanes = 8;

const dataDir = await mkdtemp(join(tmpdir(), "pinion-bench-"));
// As root, PostgreSQL runs as another user, who needs to traverse the directory.
await chmod(dataDir, 0o711);
const embedded = await startEmbedded({ dataDir });
const config = replicaConfig({
  DATABASE_URL: embedded.url,
  PINION_PORT: "0",
  PINION_LOG_LEVEL: "silent",
  // The platforms of the file are addresses of this machine.
  PINION_DESTINATION_NETWORKS: "127.0.0.0/8",
  PINION_SECRET_KEYS: `bench:${randomBytes(32).toString("base64")}`,
});
const replica = await startReplica(config);
const clients = createClients({ url: replica.url, token: replica.bootstrapToken! });
try {
  const sample = Math.min(count, sampleMax);
  const [single, batched] = [fileOf("single", sample), fileOf("batched", sample)];
  await clients.agents.createAgent({ agentId: "single" });
  const singleMs = await timed(async () => {
    const left = single.desired.platforms.values();
    const lane = async () => {
      for (const platform of left) await clients.agents.upsertPlatform(upsertPlatform(platform, 0));
    };
    await Promise.all(Array.from({ length: lanes }, lane));
  });
  const batchedMs = await timed(() => apply(batched));
  const all = fileOf("all", count);
  const firstMs = await timed(() => apply(all));
  const repeatMs = await timed(() => apply(all));
  console.log(
    JSON.stringify(
      {
        singlePerSecond: Math.round((sample * 1_000) / singleMs),
        batchedPerSecond: Math.round((sample * 1_000) / batchedMs),
        ratio: Number((singleMs / batchedMs).toFixed(1)),
        platforms: count,
        firstApplySeconds: Number((firstMs / 1_000).toFixed(1)),
        repeatedApplySeconds: Number((repeatMs / 1_000).toFixed(1)),
      },
      null,
      2,
    ),
  );
} finally {
  clients.close();
  await replica.stop();
  await embedded.stop();
  await rm(dataDir, { recursive: true, force: true });
}

function fileOf(agent: string, platforms: number) {
  const each = (index: number) =>
    `[[agents.${agent}.platforms]]\nid = "${agent}-${index}"\nkind = "webhook"\nconfig = { url = "http://127.0.0.1:9/${index}", signing_secret = "$KEY" }\n`;
  const text = `[agents.${agent}]\n${Array.from({ length: platforms }, (_, index) => each(index)).join("")}`;
  const parsed = parseFile(text, {
    file: "pinion.toml",
    env: { KEY: `whsec_${Buffer.alloc(32, 7).toString("base64")}` },
  });
  return { parsed, desired: desiredOf(parsed) };
}

async function apply({ parsed, desired }: ReturnType<typeof fileOf>): Promise<void> {
  const scope = {
    only: new Set(["agent", "platform", "watcher"] as const),
    prune: false,
    signal: new AbortController().signal,
  };
  const plan = await planFile(clients, parsed, desired, scope);
  const progress = { onDone() {}, onFailed() {}, onReplan() {} };
  const { failed } = await applyPlan(clients, parsed, desired, plan, { ...scope, progress });
  if (failed.length > 0) throw new Error(`${failed.length} steps failed: ${failed[0]!.message}`);
}

async function timed(work: () => Promise<void>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}
