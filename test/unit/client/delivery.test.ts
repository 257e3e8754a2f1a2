import { randomUUID } from "node:crypto";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { expect, onTestFinished, test } from "vitest";
import { CompletionSchema, CompletionVerdict, Outcome } from "#gen/pinion/v1/device_pb.js";
import { Delivery } from "../../../clients/ts/src/device/results/delivery.ts";
import { defaultTiming } from "../../../clients/ts/src/device/timing.ts";
import { silentLogger } from "../../../clients/ts/src/logger.ts";
import { KeptResults } from "../../../clients/ts/src/outbox/kept.ts";
import { Outbox } from "../../../clients/ts/src/outbox/outbox.ts";

test("a result that is answered while it is being written is not left on the disk", async () => {
  const directory = await mkdtemp(join(tmpdir(), "pinion-test-"));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const { outbox } = await Outbox.open(directory);
  const answered: string[] = [];
  const delivery = new Delivery({
    outbox,
    kept: await KeptResults.open(directory),
    entries: [],
    endpoint: { url: "http://127.0.0.1:1", token: "" },
    timing: defaultTiming,
    logger: silentLogger,
    onAcknowledged: ({ verdict }) => answered.push(verdict),
    onSetAside: () => {},
  });
  onTestFinished(() => delivery.stop());
  const attemptToken = randomUUID();
  const completion = create(CompletionSchema, {
    workId: randomUUID(),
    attemptToken,
    outcome: Outcome.COMPLETED,
    output: "done",
  });
  // A welcome with the verdict ABORT may come between the end of an attempt and its durability.
  const adding = delivery.add(completion, Date.now(), "watcher");
  const answer = { attemptToken, verdict: CompletionVerdict.SUPERSEDED, windowId: "", message: "" };
  await Promise.all([adding, delivery.acknowledge(answer)]);
  expect(answered).toEqual(["superseded"]);
  expect((await readdir(directory)).filter((name) => name.endsWith(".completion"))).toEqual([]);
});
