import { expect, onTestFinished, test, vi } from "vitest";
import type { BusMessage, Transient } from "../../../../src/server/cluster/bus.ts";
import { createTransients, type Transients } from "../../../../src/server/cluster/transients.ts";

/** On a busy machine too. */
const eventually = (check: () => void) => vi.waitFor(check, { timeout: 15_000, interval: 5 });

/** Replicas on an in-memory bus that loses chosen messages. */
function connectReplicas(...ids: string[]) {
  const replicas = new Map<string, Transients>();
  const sent: BusMessage[] = [];
  const bus = { loses: (_message: BusMessage): boolean => false };
  const deliver = (to: string, message: BusMessage) => {
    if (bus.loses(message)) return;
    sent.push(message);
    // A copy, as from a wire.
    const copy: BusMessage = JSON.parse(JSON.stringify(message));
    queueMicrotask(() => replicas.get(to)?.receive(copy));
  };
  for (const replicaId of ids) {
    const others = () => ids.filter((id) => id !== replicaId);
    const transients = createTransients({
      replicaId,
      bus: {
        send: deliver,
        broadcast: (message: BusMessage) => others().forEach((id) => void deliver(id, message)),
        isUp: () => true,
        close: async () => {},
      },
    });
    onTestFinished(() => transients.close());
    replicas.set(replicaId, transients);
  }
  return { bus, sent, of: (id: string) => replicas.get(id)! };
}

function watch(transients: Transients, orgId = "acme") {
  const seen = { events: [] as Transient[], resyncs: 0 };
  const stop = transients.watch(orgId, {
    onTransient: (event) => void seen.events.push(event),
    onResync: () => {
      seen.resyncs += 1;
    },
  });
  return { seen, stop };
}

const connected = (deviceId: string) => ({ kind: "device.connected" as const, deviceId, epoch: 1 });

test("a message that the bus lost shows at the next one as a resync", async () => {
  const { bus, of } = connectReplicas("a", "b");
  const { seen } = watch(of("a"));
  await eventually(() => expect(seen.resyncs).toBe(1));
  let lost = 0;
  bus.loses = (message) => {
    if (message.kind === "transients") lost += 1;
    return message.kind === "transients";
  };
  of("b").tell("acme", connected("lost"));
  await eventually(() => expect(lost).toBe(1));
  bus.loses = () => false;
  of("b").tell("acme", connected("next"));
  await eventually(() => expect(seen.events.map((event) => event.deviceId)).toEqual(["next"]));
  await eventually(() => expect(seen.resyncs).toBe(2));
});

test("a fleet that comes back at once is told of in part, in few messages, and by a resync", async () => {
  const { sent, of } = connectReplicas("a", "b", "c");
  const { seen } = watch(of("a"));
  await eventually(() => expect(seen.resyncs).toBe(1));
  for (let i = 0; i < 5_000; i++) of("b").tell("acme", connected(`device-${i}`));
  await eventually(() => expect(seen.resyncs).toBe(2));
  expect(seen.events).toHaveLength(500);
  expect(sent.filter((message) => message.kind === "transients")).toHaveLength(25);
  // The numbers go on from there: nothing else is taken for lost.
  of("b").tell("acme", connected("one more"));
  await eventually(() => expect(seen.events.at(-1)!.deviceId).toBe("one more"));
  expect(seen.resyncs).toBe(2);
});

test("a replica that has just begun to listen learns at once who watches what", async () => {
  const { bus, of } = connectReplicas("a", "b");
  // As if b had not started yet.
  bus.loses = () => true;
  const { seen } = watch(of("a"));
  bus.loses = () => false;
  of("b").introduce();
  await eventually(() => expect(seen.resyncs).toBe(1));
  of("b").tell("acme", connected("here"));
  of("b").tell("other", connected("elsewhere"));
  await eventually(() => expect(seen.events.map((event) => event.deviceId)).toEqual(["here"]));
  expect(seen.events[0]).toMatchObject({ replicaId: "b", kind: "device.connected", epoch: 1 });
});

test("who watches an org that is watched there already is told nothing twice, and the last to leave ends it", async () => {
  const { sent, of } = connectReplicas("a", "b");
  const one = watch(of("a"));
  await eventually(() => expect(one.seen.resyncs).toBe(1));
  const two = watch(of("a"));
  of("b").tell("acme", connected("x"));
  await eventually(() => expect(two.seen.events).toHaveLength(1));
  expect(one.seen.events).toHaveLength(1);
  one.stop();
  one.stop();
  of("b").tell("acme", connected("y"));
  await eventually(() => expect(two.seen.events).toHaveLength(2));
  two.stop();
  await eventually(() => expect(sent.at(-1)!.kind).toBe("unwatch_org"));
  await Promise.resolve();
  const count = sent.length;
  of("b").tell("acme", connected("z"));
  of("a").tell("acme", connected("z"));
  // The mark comes after any message sent for the event.
  const mark = watch(of("b"));
  await eventually(() => expect(mark.seen.resyncs).toBe(1));
  expect(sent.slice(count).filter((message) => message.kind === "transients")).toEqual([]);
});
