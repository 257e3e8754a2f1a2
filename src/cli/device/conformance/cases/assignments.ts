import { writeFile } from "node:fs/promises";
import { Outcome, RejectReason } from "#gen/pinion/v1/device_pb.js";
import type { ConformanceCase } from "../case.ts";
import { expectThat, Skipped, Wrong } from "../verdict.ts";

/** Maximum of slots filled by the cases. */
const slotsMax = 8;

export const assignmentCases: ConformanceCase[] = [
  {
    name: "run",
    promise: "an assignment is accepted, run with its prompt, and completed with its output and exit code",
    async play(stage) {
      const session = await stage.open();
      const names = await stage.assign(session, "echo hello");
      const completion = await session.next("complete", "a completion", { of: names });
      expectThat(
        completion.outcome === Outcome.COMPLETED,
        "OUTCOME_COMPLETED",
        `OUTCOME_${Outcome[completion.outcome]}: ${completion.reason}`,
      );
      expectThat(completion.output.trim() === "hello", 'output "hello"', JSON.stringify(completion.output));
      expectThat(completion.exitCode === 0, "exit_code 0", String(completion.exitCode));
      expectThat(completion.workId === names.workId, "the run's id beside its token", completion.workId);
      const kinds = session.received.map(({ message }) => message.case);
      expectThat(
        kinds.indexOf("accept") < kinds.indexOf("complete"),
        "accept before complete",
        kinds.join(", "),
      );
    },
  },
  {
    name: "failure",
    promise: "a program that fails is reported as failed, with its exit code",
    async play(stage) {
      const session = await stage.open();
      const names = await stage.assign(session, "exit 3");
      const { outcome, exitCode } = await session.next("complete", "a completion", { of: names });
      expectThat(
        outcome === Outcome.FAILED && exitCode === 3,
        "OUTCOME_FAILED with exit_code 3",
        `OUTCOME_${Outcome[outcome]} with ${exitCode}`,
      );
    },
  },
  {
    name: "timeout",
    promise: "an attempt whose timeout passes is killed and reported as timed out",
    async play(stage) {
      const session = await stage.open();
      const names = await stage.assign(session, "sleep 60", 1_000);
      const { outcome } = await session.next("complete", "the end of an attempt of 1 s", {
        of: names,
        withinMs: 1_000 + stage.options.patienceMs,
      });
      expectThat(outcome === Outcome.TIMEOUT, "OUTCOME_TIMEOUT", `OUTCOME_${Outcome[outcome]}`);
    },
  },
  {
    name: "duplicate",
    promise:
      "a copy of an assignment never starts a second program, neither while the first runs nor after it",
    async play(stage) {
      const session = await stage.open();
      const assignment = stage.work(`echo started >> ${stage.file("starts")}; sleep 1.5`);
      session.push(assignment);
      session.push(assignment);
      await session.next("accept", "an assignment is accepted", { of: assignment });
      await stage.lines("starts", 1);
      session.push(assignment);
      await session.next("complete", "a completion", { of: assignment });
      await session.beats(1);
      session.push(assignment);
      await session.beats(3);
      const starts = (await stage.lines("starts", 1)).length;
      expectThat(starts === 1, "the program is started once", `it was started ${starts} times`);
      expectThat(session.all("reject", assignment).length === 0, "a copy is not rejected", "a reject");
    },
  },
  {
    name: "accept-again",
    promise: "an assignment that comes again on a new stream, while it runs, is accepted again",
    async play(stage) {
      const first = await stage.open();
      const assignment = stage.work("sleep 6");
      first.push(assignment);
      await first.next("accept", "an assignment is accepted", { of: assignment });
      const second = await stage.reconnect(first);
      second.push(assignment);
      await second.next("accept", "an accept on the new stream: the first may have been lost", {
        of: assignment,
      });
    },
  },
  {
    name: "concurrency",
    promise:
      "no more than max_concurrency attempts run; one beyond them is rejected as busy, and a freed slot is used",
    async play(stage) {
      const session = await stage.open();
      const slots = session.hello.maxConcurrency;
      if (slots > slotsMax) throw new Skipped(`the device has ${slots} slots; up to ${slotsMax} are tried`);
      const marker = stage.file("go");
      const work = Array.from({ length: slots }, () =>
        stage.work(`while [ ! -e ${marker} ]; do sleep 0.1; done`),
      );
      for (const assignment of work) session.push(assignment);
      for (const assignment of work) {
        await session.next("accept", `${slots} assignments are accepted`, { of: assignment });
      }
      const extra = stage.work("echo extra");
      session.push(extra);
      await session.beats(2);
      const [reject] = session.all("reject", extra);
      expectThat(session.all("accept", extra).length === 0, "no accept beyond max_concurrency", "an accept");
      if (!reject) throw new Wrong("a reject for an assignment beyond max_concurrency", "no answer");
      expectThat(
        reject.reason === RejectReason.BUSY,
        "REJECT_REASON_BUSY",
        `REJECT_REASON_${RejectReason[reject.reason]}`,
      );
      await writeFile(marker, "");
      for (const assignment of work) await session.next("complete", "the attempts end", { of: assignment });
      await stage.assign(session, "echo again");
    },
  },
  {
    name: "unsupported",
    promise: "an agent kind that is not configured is rejected as unsupported",
    async play(stage) {
      const session = await stage.open();
      const assignment = stage.server.assignment({ prompt: "true", agentKind: "no-such-kind-here" });
      session.push(assignment);
      const { reason } = await session.next("reject", "a reject of an unknown agent kind", {
        of: assignment,
      });
      expectThat(
        reason === RejectReason.UNSUPPORTED,
        "REJECT_REASON_UNSUPPORTED",
        `REJECT_REASON_${RejectReason[reason]}`,
      );
    },
  },
];
