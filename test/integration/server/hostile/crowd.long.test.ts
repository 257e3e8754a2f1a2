/**
 * A crowd of strangers that holds connections and half-sent requests, beside a working fleet. A
 * tenth of the full size by default; PINION_CROWD_SCALE=1 is 25,000 connections, a million
 * half-sent streams and 1,000 devices.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { createClients } from "@pinion/client";
import { expect, onTestFinished, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import { enrolDevice } from "../../../support/device.ts";
import { openHttp2, type RawConnection } from "../../../support/hostile/http2.ts";
import { quantile, startTarget, type Target } from "../../../support/hostile/target.ts";
import { makeMemoryGroup } from "../../../support/memory-group.ts";

const scale = Number(process.env.PINION_CROWD_SCALE ?? 0.1);
const connections = Math.round(25_000 * scale);
const streams = Math.round(1_000_000 * scale);
const deviceCount = Math.round(1_000 * scale);
const crowds = 2;
const beatMs = 2_000;
/** The memory of a small container. */
const memoryBytesMax = 512 * 1024 * 1024;
/** Node's own default under such a memory limit, for machines without cgroups. */
const heapOfContainer = "--max-old-space-size=256";
const latencyMsMax = 250;

const database = useDatabase();
const script = (name: string) => fileURLToPath(new URL(`../../../support/hostile/${name}`, import.meta.url));

function start(name: string, args: string[], input?: string): { child: ChildProcess; lines: object[] } {
  const child = spawn(process.execPath, [script(name), ...args], { stdio: ["pipe", "pipe", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  child.stdin!.end(input);
  const lines: object[] = [];
  createInterface(child.stdout!).on("line", (line) => lines.push(JSON.parse(line)));
  return { child, lines };
}

async function until<T>(find: () => T | undefined, what: string, withinMs: number): Promise<T> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const found = find();
    if (found !== undefined) return found;
    if (performance.now() > deadline) throw new Error(`no ${what} within ${withinMs} ms`);
    await delay(100);
  }
}

async function enrolFleet(target: Target): Promise<{ installId: string; token: string }[]> {
  const devices: { installId: string; token: string }[] = [];
  while (devices.length < deviceCount) {
    const some = Array.from({ length: Math.min(20, deviceCount - devices.length) }, (_, index) =>
      enrolDevice(target.clients, `fleet-${devices.length + index}`),
    );
    devices.push(...(await Promise.all(some)));
  }
  return devices;
}

type Progress = { begun: number; isDone: boolean; made: number; closed: number; failed: number };

test(`${connections} connections and ${streams} half-sent streams of strangers do not keep ${deviceCount} devices waiting`, {
  timeout: 300_000 + 1_200_000 * scale,
}, async () => {
  const probePort = 20_000 + Math.floor(Math.random() * 10_000);
  const group = makeMemoryGroup(memoryBytesMax);
  const target = await startTarget(
    database.url,
    {
      PINION_HELLO_DEADLINE_MS: "20000",
      PINION_PROBE_PORT: String(probePort),
      NODE_OPTIONS: group ? "" : heapOfContainer,
    },
    { group },
  );
  onTestFinished(async () => {
    await target.stop();
    await group?.remove();
  });
  const devices = await enrolFleet(target);
  const fleet = start(
    "fleet-process.ts",
    [],
    JSON.stringify({ host: new URL(target.url).host, devices, beatMs }),
  );
  const latencies = (from: number) =>
    fleet.lines.slice(from).flatMap((line) => ("ms" in line ? [line.ms as number] : []));
  await until(() => fleet.lines.find((line) => "isReady" in line), "fleet", 60_000);
  await delay(3 * beatMs);
  const quiet = latencies(0);

  const from = fleet.lines.length;
  const attackers = Array.from({ length: crowds }, (_, network) =>
    start("crowd-process.ts", [
      JSON.stringify({
        port: target.port,
        connections: Math.round(connections / crowds),
        streams: Math.round(streams / crowds),
        bodyBytes: 600,
        addresses: 100,
        network: 1 + network,
      }),
    ]),
  );
  const progress = () => attackers.map(({ lines }) => lines.at(-1) as Progress | undefined);
  let peak = 0;
  let probesAnswered = 0;
  let probesAsked = 0;
  let callsMsMax = 0;
  const startedAt = performance.now();
  const cpuFrom = target.cpuSeconds();
  while (progress().some((one) => !one?.isDone)) {
    await delay(500);
    peak = Math.max(peak, target.rssBytes());
    for (const url of [target.url, `http://127.0.0.1:${probePort}`]) {
      probesAsked += 1;
      const answer = await fetch(`${url}/healthz`, { signal: AbortSignal.timeout(5_000) }).catch(
        () => undefined,
      );
      if (answer?.status === 200) probesAnswered += 1;
    }
    // A valid token on a new connection, during the attack.
    const fresh = createClients({ url: target.url, token: target.token });
    const askedAt = performance.now();
    await fresh.fleet.listDevices({ pageSize: 1 });
    callsMsMax = Math.max(callsMsMax, performance.now() - askedAt);
    fresh.close();
    expect(target.isAlive()).toBe(true);
  }
  const seconds = (performance.now() - startedAt) / 1_000;
  const cpuSeconds = target.cpuSeconds() - cpuFrom;
  const attacked = latencies(from);
  const sum = (of: keyof Progress) => progress().reduce((total, one) => total + Number(one?.[of]), 0);
  const p99 = quantile(attacked, 0.99);
  process.stderr.write(
    `  crowd × ${scale}: ${sum("made")} connections, ${sum("begun")} half-sent streams in ${seconds.toFixed(0)} s, ` +
      `${sum("closed")} closed; beats p50 ${quantile(attacked, 0.5).toFixed(1)}, p99 ${quantile(quiet, 0.99).toFixed(1)} → ` +
      `${p99.toFixed(1)} ms (${attacked.length}); memory at most ${(peak / 2 ** 20).toFixed(0)} MiB resident, ` +
      `${group ? `${(group.peakBytes() / 2 ** 20).toFixed(0)} MiB with the kernel's in a cgroup` : "no cgroup"}; ` +
      `CPU of the server ${cpuSeconds.toFixed(1)} s, ${((cpuSeconds * 1e6) / sum("begun")).toFixed(0)} µs a half-sent stream; ` +
      `probes ${probesAnswered}/${probesAsked}; slowest new call ${callsMsMax.toFixed(0)} ms\n`,
  );
  expect(fleet.lines.filter((line) => "problem" in line)).toEqual([]);
  expect(probesAnswered).toBe(probesAsked);
  expect(peak).toBeLessThan(memoryBytesMax);
  expect(p99).toBeLessThan(latencyMsMax);
});

test("good tokens' bodies that never come whole are bounded together", { timeout: 120_000 }, async () => {
  const target = await startTarget(database.url, {
    PINION_BODY_BYTES_MAX: "33554432",
    NODE_OPTIONS: heapOfContainer,
  });
  onTestFinished(() => target.stop());
  const before = target.rssBytes();
  const { partialBodies } = await import("../../../support/hostile/partial-bodies.ts");
  const raws: RawConnection[] = [];
  onTestFinished(() => raws.forEach(({ socket }) => void socket.destroy()));
  let peak = 0;
  for (let count = 0; count < 5; count += 1) {
    const raw = await openHttp2(target.port);
    raws.push(raw);
    await partialBodies(raw, { token: target.token, streams: 10, bytes: 2_000_000 });
    peak = Math.max(peak, target.rssBytes());
  }
  process.stderr.write(
    `  50 × 2 MB of a good token: memory ${(before / 2 ** 20).toFixed(0)} → ${(peak / 2 ** 20).toFixed(0)} MiB\n`,
  );
  expect((peak - before) / 2 ** 20).toBeLessThan(200);
  expect(await target.clients.fleet.listDevices({ pageSize: 1 })).toBeDefined();
});
