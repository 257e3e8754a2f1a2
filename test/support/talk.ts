/** Turns of the person "ada", and a watcher of the turns. */
import { randomUUID } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Clients } from "@pinion/client";
import { expect, onTestFinished, vi } from "vitest";
import { type Assignment, Outcome } from "#gen/pinion/v1/device_pb.js";
import type { RunOutput } from "#gen/pinion/v1/run_pb.js";
import type { StartTurnRequestSchema, Turn, TurnStatus } from "#gen/pinion/v1/turn_pb.js";
import type { DeviceStream } from "./device.ts";

export async function startTurn(
  clients: Clients,
  request: MessageInitShape<typeof StartTurnRequestSchema> = {},
): Promise<Turn> {
  const { turn } = await clients.turns.startTurn({
    userId: "ada",
    messageId: randomUUID(),
    input: "hello",
    ...request,
  });
  return turn!;
}

export async function getTurn(clients: Clients, { id }: { id: string }): Promise<Turn> {
  return (await clients.turns.getTurn({ turnId: id })).turn!;
}

/** Waits until a turn has a status, looking often. */
export function untilTurn(clients: Clients, turn: { id: string }, status: TurnStatus): Promise<Turn> {
  return vi.waitFor(
    async () => {
      const now = await getTurn(clients, turn);
      expect(now.status).toBe(status);
      return now;
    },
    { timeout: 10_000, interval: 20 },
  );
}

/**
 * Reports a turn as completed, with the snapshot for the conversation's next turn; returns the
 * verdict.
 */
export async function answer(
  stream: DeviceStream,
  assignment: Assignment,
  reply: string,
  nextSnapshot?: string,
): Promise<number> {
  stream.send({
    case: "complete",
    value: {
      ...nameOf(assignment),
      outcome: Outcome.COMPLETED,
      output: reply,
      ...(nextSnapshot === undefined ? {} : { nextSnapshot: Buffer.from(nextSnapshot) }),
    },
  });
  return (await stream.next("completionAck")).verdict;
}

export const nameOf = ({ workId, attemptToken }: { workId: string; attemptToken: string }) => ({
  workId,
  attemptToken,
});

/**
 * Watches a turn from now on; messages so far are in the arrays, and `over` resolves with the
 * stream.
 */
export function watchTurn(clients: Clients, { id }: { id: string }, afterSequence = 0n) {
  const stop = new AbortController();
  onTestFinished(() => stop.abort());
  const states: Turn[] = [];
  const outputs: RunOutput[] = [];
  const ends: Turn[] = [];
  const over = (async () => {
    const updates = clients.turns.watchTurn({ turnId: id, afterSequence }, { signal: stop.signal });
    for await (const { update } of updates) {
      if (update.case === "turn") states.push(update.value);
      if (update.case === "output") outputs.push(update.value);
      if (update.case === "ended") ends.push(update.value);
    }
  })();
  over.catch(() => {});
  return {
    states,
    outputs,
    ends,
    over,
    leave: () => stop.abort(),
    text: () => Buffer.concat(outputs.map((output) => output.data)).toString(),
    begun: () => vi.waitFor(() => expect(states.length).toBeGreaterThan(0)),
  };
}
