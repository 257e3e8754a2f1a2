import { writeFile } from "node:fs/promises";
import { HeldAttemptState, HeldVerdict, Outcome } from "#gen/pinion/v1/device_pb.js";
import type { ConformanceCase } from "../case.ts";
import { untilGone } from "../gone.ts";
import { expectThat } from "../verdict.ts";

/** A script with a child; both write their process ids to a file and stay. */
export const familyOf = (file: string) => `sleep 60 & echo $! >> ${file}; echo $$ >> ${file}; wait; sleep 60`;

export const verdictCases: ConformanceCase[] = [
  {
    name: "verdict-continue",
    promise:
      "what runs goes on while the stream is down; the hello lists it, and after CONTINUE it completes",
    async play(stage) {
      const first = await stage.open();
      const marker = stage.file("go");
      const names = await stage.assign(first, `while [ ! -e ${marker} ]; do sleep 0.1; done; echo through`);
      const second = await stage.reconnect(first);
      const held = second.hello.held.find(({ attemptToken }) => attemptToken === names.attemptToken);
      expectThat(held?.state === HeldAttemptState.RUNNING, "the hello lists it as running", "it does not");
      await writeFile(marker, "");
      const { outcome, output } = await second.next("complete", "its completion", { of: names });
      expectThat(
        outcome === Outcome.COMPLETED && output.trim() === "through",
        "OUTCOME_COMPLETED with its output",
        `OUTCOME_${Outcome[outcome]}`,
      );
    },
  },
  {
    name: "verdict-abort",
    promise: "after ABORT the attempt's processes are killed, and nothing more is said of it",
    async play(stage) {
      const first = await stage.open();
      const names = await stage.assign(first, familyOf(stage.file("pids")));
      const pids = (await stage.lines("pids", 2)).map(Number);
      stage.script.heldVerdict = () => HeldVerdict.ABORT;
      const second = await stage.reconnect(first);
      await untilGone(pids, "ABORT ends the attempt's whole process group", stage.options.patienceMs);
      await second.beats(2);
      const last = await second.beats(1);
      expectThat(
        !last.attempts.some(({ attemptToken }) => attemptToken === names.attemptToken),
        "heartbeats do not list it any more",
        "they do",
      );
      expectThat(second.all("complete", names).length === 0, "no completion of it", "a completion");
      stage.script.heldVerdict = undefined;
      const { hello } = await stage.reconnect(second);
      expectThat(hello.held.length === 0, "it is forgotten", "the next hello lists it");
    },
  },
  {
    name: "verdict-already-stored",
    promise: "after ALREADY_STORED a result is forgotten",
    async play(stage) {
      stage.script.acknowledges = false;
      const first = await stage.open();
      const names = await stage.assign(first, "echo kept");
      await first.next("complete", "a completion", { of: names });
      stage.script.heldVerdict = () => HeldVerdict.ALREADY_STORED;
      const second = await stage.reconnect(first);
      expectThat(second.hello.held.length === 1, "the hello lists the result", "it does not");
      await second.beats(2);
      const { hello } = await stage.reconnect(second);
      expectThat(hello.held.length === 0, "it is forgotten", "the next hello lists it");
    },
  },
  {
    name: "restart-leftovers",
    promise: "what a killed daemon left running is listed by the next one, or ended",
    async play(stage) {
      const first = await stage.open();
      const names = await stage.assign(first, familyOf(stage.file("pids")));
      const pids = (await stage.lines("pids", 2)).map(Number);
      const second = await stage.restart();
      const isListed = second.hello.held.some(({ attemptToken }) => attemptToken === names.attemptToken);
      if (isListed) return;
      await untilGone(pids, "programs that nobody knows of any more are ended", stage.options.patienceMs);
    },
  },
];
