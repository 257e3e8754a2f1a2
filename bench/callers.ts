/** Services that call from a separate process: triggers of runs, and turns of conversations. */
import { createClients } from "@pinion/client";
import { answerQuestions } from "./lib/children.ts";
import { LoadDevice } from "./lib/device.ts";

type Service = { orgId: string; token: string };
type Question =
  /**
   * Triggers one watcher after each gap; returns the wall-clock time of each call, and the run
   * created by the call.
   */
  | {
      kind: "trigger";
      url: string;
      services: Service[];
      watchers: { orgId: string; id: string }[];
      gapsMs: number[];
    }
  /**
   * Holds the devices of agents; `conversations` of each org send `turnsEach` messages, each after
   * the last reply.
   */
  | {
      kind: "talk";
      url: string;
      services: Service[];
      devices: { orgId: string; installId: string; token: string }[];
      slots: number;
      conversations: number;
      turnsEach: number;
      agentId: string;
      /** The last message of each conversation is taken on and not answered. */
      isLeftOpen: boolean;
    };

/** A machine without an answer within this time is not measured. */
const sayMsMax = 300_000;

const now = () => performance.timeOrigin + performance.now();

async function trigger({ url, services, watchers, gapsMs }: Extract<Question, { kind: "trigger" }>) {
  const clients = clientsOf(url, services);
  const asked: { runId: string; at: number }[] = [];
  const calls: Promise<void>[] = [];
  let at = performance.now();
  for (const [index, gap] of gapsMs.entries()) {
    at += gap;
    const leftMs = at - performance.now();
    if (leftMs > 0) await new Promise((resolve) => setTimeout(resolve, leftMs));
    const { orgId, id } = watchers[index]!;
    const calledAt = now();
    calls.push(
      clients
        .get(orgId)!
        .watchers.triggerWatcher({ watcherId: id })
        .then(({ run }) => void asked.push({ runId: run!.id, at: calledAt })),
    );
  }
  await Promise.all(calls);
  return asked;
}

function clientsOf(url: string, services: readonly Service[]) {
  return new Map(
    services.map(({ orgId, token }) => [orgId, createClients({ url, token, protocol: "grpc" })]),
  );
}

async function talk(question: Extract<Question, { kind: "talk" }>) {
  const { url, services, devices, conversations, turnsEach, agentId } = question;
  const clients = clientsOf(url, services);
  /** The continuation after the acknowledgement of the turn's reply. */
  const answered = new Map<string, () => void>();
  /** Acknowledgements that came before the answer of the call that started their turn. */
  const early = new Set<string>();
  const completedAt = new Map<string, number>();
  const acks: number[] = [];
  let heldOpen = 0;
  let onHeld: (() => void) | undefined;
  let isHolding = false;
  let welcomed = 0;
  const opened = await new Promise<LoadDevice[]>((resolve) => {
    const all: LoadDevice[] = devices.map(
      (device) =>
        new LoadDevice(url, device, {
          slots: question.slots,
          beatMs: 20_000,
          isHolding: () => isHolding,
          listener: {
            welcomed: () => ++welcomed === devices.length && setImmediate(() => resolve(all)),
            assigned() {
              if (!isHolding) return;
              heldOpen++;
              onHeld?.();
            },
            completed: (turnId) => completedAt.set(turnId, performance.now()),
            acknowledged(turnId) {
              acks.push(performance.now() - completedAt.get(turnId)!);
              const next = answered.get(turnId);
              if (next) next();
              else early.add(turnId);
            },
          },
        }),
    );
  });
  const startedAt = performance.now();
  const say = async (orgId: string, conversation: number, message: number) => {
    for (;;) {
      try {
        const { turn } = await clients.get(orgId)!.turns.startTurn({
          agentId,
          userId: `user-${conversation}`,
          messageId: `message-${message}`,
          input: "How is it going?",
        });
        return turn!.id;
      } catch (error) {
        // A repeated call with the same id is the same message.
        if (performance.now() - startedAt > sayMsMax) throw error;
        await new Promise((resolve) => setTimeout(resolve, 500));
      }
    }
  };
  const converse = async (orgId: string, conversation: number) => {
    for (let message = 0; message < turnsEach; message++) {
      const turnId = await say(orgId, conversation, message);
      if (early.delete(turnId)) continue;
      await new Promise<void>((resolve) => answered.set(turnId, resolve));
      answered.delete(turnId);
    }
  };
  const each = services.flatMap(({ orgId }) =>
    Array.from({ length: conversations }, (_, n) => ({ orgId, n })),
  );
  await Promise.all(each.map(({ orgId, n }) => converse(orgId, n)));
  const seconds = (performance.now() - startedAt) / 1_000;
  if (question.isLeftOpen) {
    isHolding = true;
    const held = new Promise<void>((resolve) => {
      onHeld = () => heldOpen === each.length && resolve();
    });
    await Promise.all(each.map(({ orgId, n }) => say(orgId, n, turnsEach)));
    await held;
  }
  const brokenAt = now();
  for (const device of opened) device.close();
  return { seconds, acks, brokenAt };
}

answerQuestions(
  (question: Question): Promise<unknown> =>
    question.kind === "trigger" ? trigger(question) : talk(question),
);
