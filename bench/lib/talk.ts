import { createClients } from "@pinion/client";
import { LoadDevice } from "./device.ts";

type Service = { orgId: string; token: string };

/**
 * Holds the devices of agents; `conversations` of each org send `turnsEach` messages, each after
 * the last reply.
 */
export type TalkQuestion = {
  kind: "talk";
  url: string;
  services: Service[];
  devices: { orgId: string; installId: string; token: string }[];
  slots: number;
  conversations: number;
  turnsEach: number;
  agentId: string;
};

/**
 * `acks`: milliseconds from a reply to its acknowledgement. `says`: milliseconds of a call that
 * starts a turn.
 */
export type Talked = { seconds: number; acks: number[]; says: number[] };

export type Talk = {
  measured: Talked;
  /** Says one more message in each conversation, and resolves when devices hold all of them. */
  hold(): Promise<void>;
  /** Cuts all streams of devices; the wall-clock time of it. */
  break(): number;
};

/** A machine without an answer within this time is not measured. */
const sayMsMax = 300_000;

export function clientsOf(url: string, services: readonly Service[]) {
  return new Map(
    services.map(({ orgId, token }) => [orgId, createClients({ url, token, protocol: "grpc" })]),
  );
}

export async function talk(question: TalkQuestion): Promise<Talk> {
  const { services, conversations, turnsEach } = question;
  const clients = clientsOf(question.url, services);
  const replies = new Replies();
  const devices = await openDevices(question, replies);
  const says: number[] = [];
  const startedAt = performance.now();
  const say = async (orgId: string, conversation: number, message: number) => {
    for (;;) {
      const calledAt = performance.now();
      try {
        const { turn } = await clients.get(orgId)!.turns.startTurn({
          ...{ agentId: question.agentId, input: "How is it going?" },
          ...{ userId: `user-${conversation}`, messageId: `message-${message}` },
        });
        says.push(performance.now() - calledAt);
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
      await replies.to(await say(orgId, conversation, message));
    }
  };
  const each = services.flatMap(({ orgId }) =>
    Array.from({ length: conversations }, (_, n) => ({ orgId, n })),
  );
  await Promise.all(each.map(({ orgId, n }) => converse(orgId, n)));
  return {
    measured: { seconds: (performance.now() - startedAt) / 1_000, acks: replies.acks, says },
    async hold() {
      const held = replies.held(each.length);
      await Promise.all(each.map(({ orgId, n }) => say(orgId, n, turnsEach)));
      await held;
    },
    break() {
      const at = performance.timeOrigin + performance.now();
      for (const device of devices) device.close();
      return at;
    },
  };
}

/** The replies of the devices, and the turns that devices hold. */
class Replies {
  readonly acks: number[] = [];
  isHolding = false;
  /** The continuation after the acknowledgement of the turn's reply. */
  readonly #waiting = new Map<string, () => void>();
  /** Acknowledgements that came before the answer of the call that started their turn. */
  readonly #early = new Set<string>();
  readonly #completedAt = new Map<string, number>();
  #held = 0;
  #onHeld: (() => void) | undefined;

  async to(turnId: string): Promise<void> {
    if (this.#early.delete(turnId)) return;
    await new Promise<void>((resolve) => this.#waiting.set(turnId, resolve));
    this.#waiting.delete(turnId);
  }

  async held(count: number): Promise<void> {
    this.isHolding = true;
    await new Promise<void>((resolve) => {
      this.#onHeld = () => this.#held === count && resolve();
    });
  }

  assigned(): void {
    if (!this.isHolding) return;
    this.#held++;
    this.#onHeld?.();
  }

  completed(turnId: string): void {
    this.#completedAt.set(turnId, performance.now());
  }

  acknowledged(turnId: string): void {
    this.acks.push(performance.now() - this.#completedAt.get(turnId)!);
    this.#completedAt.delete(turnId);
    const next = this.#waiting.get(turnId);
    if (next) next();
    else this.#early.add(turnId);
  }
}

/** Opens the streams of the devices, and resolves when all are welcomed. */
function openDevices({ url, devices, slots }: TalkQuestion, replies: Replies): Promise<LoadDevice[]> {
  let welcomed = 0;
  return new Promise((resolve) => {
    const all: LoadDevice[] = devices.map(
      (device) =>
        new LoadDevice(url, device, {
          ...{ slots, beatMs: 20_000, isHolding: () => replies.isHolding },
          listener: {
            welcomed: () => ++welcomed === devices.length && setImmediate(() => resolve(all)),
            assigned: () => replies.assigned(),
            completed: (turnId) => replies.completed(turnId),
            acknowledged: (turnId) => replies.acknowledged(turnId),
          },
        }),
    );
  });
}
