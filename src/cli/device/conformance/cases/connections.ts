import { setTimeout as sleep } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import { DrainReason } from "#gen/pinion/v1/device_pb.js";
import { within } from "../../../../time/abort.ts";
import type { ConformanceCase } from "../case.ts";
import { Stage } from "../stage.ts";
import { expectThat, Wrong } from "../verdict.ts";

/**
 * Observation time in ms and maximum of dials: full jitter with ceilings from 500 ms makes about
 * seven dials.
 */
const countedMs = 8_000;
const dialsMax = 20;
/** Time without a dial after a removal or a refusal, in ms. */
const quietMs = 4_000;
const refusedDialsMax = 10;

/** Two waits closer than this count as equal on a busy machine, in ms. */
const alikeMs = 40;

const gapsOf = (times: readonly number[]) => times.slice(1).map((at, index) => at - (times[index] ?? at));

export const connectionCases: ConformanceCase[] = [
  {
    name: "drain",
    promise: "after a drain the daemon waits as told and connects again, and what runs goes on",
    async play(stage) {
      const first = await stage.open();
      const names = await stage.assign(first, "sleep 4; echo through");
      const delayMs = 2_000;
      const drainedAt = performance.now();
      first.drain(DrainReason.SHUTDOWN, delayMs);
      const second = await stage.server.session("another stream after a drain");
      const tookMs = (stage.server.dials.at(-1) ?? 0) - drainedAt;
      // 50 ms for two processes' clocks and a rounding timer.
      expectThat(tookMs > delayMs - 50, `no dial before ${delayMs} ms`, `one after ${Math.round(tookMs)} ms`);
      expectThat(first.isClosed, "the drained stream is left", "it is still open");
      expectThat(
        second.hello.held.some(({ attemptToken }) => attemptToken === names.attemptToken),
        "the hello lists the run that goes on",
        "it does not",
      );
      const { output } = await second.next("complete", "its completion", { of: names });
      expectThat(output.trim() === "through", "its output", JSON.stringify(output));
    },
  },
  {
    name: "revoked",
    promise: "after a drain with DRAIN_REASON_REVOKED the daemon does not come back",
    async play(stage) {
      const session = await stage.open();
      session.drain(DrainReason.REVOKED, 0);
      session.end(Code.Unauthenticated);
      await sleep(quietMs);
      const { length } = stage.server.dials;
      expectThat(length === 1, "no dial after it", `${length - 1} dials in ${quietMs} ms`);
    },
  },
  {
    name: "unauthenticated",
    promise: "a token that is refused ends the daemon, or at least its dialling, after a few tries",
    async play(stage) {
      stage.script.refusal = Code.Unauthenticated;
      stage.start();
      const ended = await within(stage.daemon.ended, stage.options.patienceMs);
      const { length } = stage.server.dials;
      expectThat(length > 0, "it dials at all", "no dial");
      expectThat(length <= refusedDialsMax, `at most ${refusedDialsMax} dials`, `${length}`);
      if (ended === undefined) {
        await sleep(quietMs);
        const more = stage.server.dials.length - length;
        expectThat(
          more === 0,
          `no dial in ${quietMs} ms, after ${stage.options.patienceMs} ms of refusals`,
          `${more}`,
        );
      } else {
        expectThat(ended !== 0, "an exit code other than 0", "0");
      }
    },
  },
  {
    name: "unavailable",
    promise: "UNAVAILABLE is retried for ever, with a backoff that differs from daemon to daemon (jitter)",
    async play(stage) {
      const other = await Stage.set(stage.options);
      try {
        for (const each of [stage, other]) {
          each.script.refusal = Code.Unavailable;
          each.start();
        }
        await sleep(countedMs);
        for (const { server, daemon } of [stage, other]) {
          const { length } = server.dials;
          expectThat(!daemon.hasEnded, "the daemon goes on", "it ended");
          expectThat(length >= 2, `at least 2 dials in ${countedMs} ms`, `${length}`);
          expectThat(length <= dialsMax, `at most ${dialsMax} dials in ${countedMs} ms`, `${length}`);
        }
        const [mine, others] = [gapsOf(stage.server.dials), gapsOf(other.server.dials)];
        const isAlike = mine.every((gap, index) => Math.abs(gap - (others[index] ?? gap)) < alikeMs);
        expectThat(
          !isAlike,
          "two daemons wait differently long",
          `both waited ${mine.map((gap) => Math.round(gap)).join(", ")} ms`,
        );
      } finally {
        await other.clear();
      }
      stage.script.refusal = undefined;
      // The backoff may have reached its cap by now.
      await stage.server.session("a stream once the server is there again", 60_000);
    },
  },
  {
    name: "accept-and-drop",
    promise:
      "a server that welcomes and drops is dialled ever more slowly: only a session that held resets the backoff",
    async play(stage) {
      stage.start();
      const until = performance.now() + countedMs;
      while (performance.now() < until) {
        const session = await stage.server
          .session("a stream", Math.max(1, until - performance.now()))
          .catch((error: unknown) => {
            if (error instanceof Wrong && performance.now() >= until) return undefined;
            throw error;
          });
        session?.end();
      }
      const { length } = stage.server.dials;
      expectThat(length >= 2, `at least 2 dials in ${countedMs} ms`, `${length}`);
      expectThat(length <= dialsMax, `at most ${dialsMax} dials in ${countedMs} ms`, `${length}`);
    },
  },
];
