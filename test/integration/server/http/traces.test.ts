/** A run's trace, as received by a collector from two replicas and a daemon. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { enroll } from "@pinion/client";
import { expect, test, vi } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { type CollectedSpan, startCollector } from "../../../support/otlp.ts";
import { startPinion, temporaryDirectory } from "../../../support/processes.ts";
import { startTestReplica } from "../../../support/server.ts";
import { startWork, takeOn, untilStatus } from "../../../support/work.ts";

const database = useDatabase();

const named = (spans: CollectedSpan[], traceId: string) =>
  new Map(spans.filter((span) => span.traceId === traceId).map((span) => [span.name, span]));

test("one trace leads from due to stored, through both replicas, the daemon and its program", async () => {
  const collector = await startCollector();
  const settings = { PINION_OTLP_ENDPOINT: collector.url };
  const [there, here] = [
    await startTestReplica(database.url, settings),
    await startTestReplica(database.url, settings),
  ];
  const stateDir = await temporaryDirectory();
  const { joinCode } = await here.clients.fleet.createJoinCode({});
  const { deviceId } = await enroll({ url: here.url, joinCode, label: "traced", stateDir });
  const config = join(stateDir, "device.toml");
  writeFileSync(
    config,
    '[device]\ndefault_executor = "tell"\n[executors.tell]\ncommand = ["sh", "-c", "printf %s $TRACEPARENT"]\nstdin = "none"\n',
  );
  const daemon = startPinion(["device", "run", "--state-dir", stateDir, "--config", config, "--json"], {
    ...settings,
    PINION_URL: here.url,
  });
  await daemon.line(/"connected"/);
  const { watcher } = await there.clients.watchers.createWatcher({
    spec: { name: "Traced", prompt: "go", deviceId },
  });
  const { run } = await there.clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  await untilStatus(there.clients, { workId: run!.id }, RunStatus.COMPLETED);
  await daemon.line(/"acknowledged"/);

  const traceId = run!.id.replaceAll("-", "");
  const wanted = [
    ...["run", "materialize", "claim and push", "accept", "complete and store"],
    ...["accept on device", "execute", "deliver"],
  ];
  const spans = await vi.waitFor(
    () => {
      const found = named(collector.spans, traceId);
      expect([...found.keys()].sort()).toEqual([...wanted].sort());
      return found;
    },
    { timeout: 10_000, interval: 50 },
  );
  const root = spans.get("run")!;
  expect(root.parentSpanId).toBe("");
  expect(root.attributes).toMatchObject({
    "pinion.run_id": run!.id,
    "pinion.device_id": deviceId,
    "pinion.run.status": "completed",
  });
  for (const [name, span] of spans) {
    expect(span.service).toBe(
      ["accept on device", "execute", "deliver"].includes(name) ? "pinion-device" : "pinion",
    );
    if (span !== root) expect(span.parentSpanId).toBe(root.spanId);
    expect(span.endMs).toBeGreaterThanOrEqual(span.startMs);
  }
  const execute = spans.get("execute")!;
  expect(execute.startMs).toBeGreaterThanOrEqual(root.startMs - 1);
  expect(execute.attributes["pinion.executor"]).toBe("tell");
  // The program's span is below `execute`: the program received this trace context.
  const { windows } = await there.clients.runs.listWindows({ watcherId: watcher!.id });
  expect(windows[0]!.extractedData).toMatchObject({ output: `00-${traceId}-${execute.spanId}-01` });
  expect(collector.requests[0]).toEqual({ path: "/v1/traces", type: "application/x-protobuf" });
});

test("a call's span stands below the span that its caller names", async () => {
  const collector = await startCollector();
  const replica = await startTestReplica(database.url, { PINION_OTLP_ENDPOINT: `${collector.url}/` });
  const [traceId, spanId] = ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"];
  const ask = (authorization: string, flags: string) =>
    fetch(`${replica.url}/pinion.v1.RunService/ListRuns`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        authorization,
        traceparent: `00-${traceId}-${spanId}-${flags}`,
      },
      body: "{}",
    });
  expect((await ask(`Bearer ${replica.token}`, "00")).status).toBe(200);
  expect((await ask("Bearer nobody", "01")).status).toBe(401);
  expect((await ask(`Bearer ${replica.token}`, "01")).status).toBe(200);
  await vi.waitFor(() => expect(collector.spans.some((span) => span.traceId === traceId)).toBe(true), {
    timeout: 10_000,
  });
  // A trace that the caller does not sample is not sampled here, and a caller without a valid token
  // leaves no spans.
  expect(collector.spans.filter((span) => span.traceId === traceId)).toMatchObject([
    { name: "pinion.v1.RunService/ListRuns", parentSpanId: spanId, isError: false },
  ]);
});

test("a run that is not among the share leaves no span, and its device is told so", async () => {
  const collector = await startCollector();
  const replica = await startTestReplica(database.url, {
    PINION_OTLP_ENDPOINT: collector.url,
    PINION_TRACE_RATIO: "0",
  });
  const device = await enrolDevice(replica.clients);
  const stream = await connect(replica.url, device);
  const run = await startWork(replica.clients, device);
  const assignment = await takeOn(stream);
  expect(assignment.traceparent).toMatch(new RegExp(`^00-${run.id.replaceAll("-", "")}-[0-9a-f]{16}-00$`));
  await stream.complete(assignment);
  await replica.stop();
  expect(collector.spans).toEqual([]);
});

test("without an endpoint a device is given no trace context", async () => {
  const replica = await startTestReplica(database.url);
  const device = await enrolDevice(replica.clients);
  const stream = await connect(replica.url, device);
  await startWork(replica.clients, device);
  expect((await takeOn(stream)).traceparent).toBe("");
});

test("a collector that is away holds up neither the runs nor the stop", async () => {
  const replica = await startTestReplica(database.url, { PINION_OTLP_ENDPOINT: "http://127.0.0.1:9" });
  const device = await enrolDevice(replica.clients);
  const stream = await connect(replica.url, device);
  await startWork(replica.clients, device);
  await stream.complete(await takeOn(stream));
  stream.end();
  const startedAt = performance.now();
  await replica.stop();
  expect(performance.now() - startedAt).toBeLessThan(6_000);
});
