/** Devices that misbehave: in sent messages, in messages not read, and in omitted answers. */
import { setTimeout as delay } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ConnectRequest, ConnectRequestSchema, Os } from "#gen/pinion/v1/device_pb.js";
import { OutputStream, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { checkMessage } from "../../../../src/server/access/interceptors/validate.ts";
import { reactions, type SessionInput } from "../../../../src/server/device/session/session-table.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, dial, enrolDevice } from "../../../support/device.ts";
import { mutationsOf } from "../../../support/hostile/fields.ts";
import { flags, frameTypes, grpcHeaders, http2Frame, openHttp2 } from "../../../support/hostile/http2.ts";
import { fuzzMs, seedOfRun } from "../../../support/hostile/random.ts";
import { startTarget, type Target, withstand } from "../../../support/hostile/target.ts";
import { createRandom } from "../../../support/random.ts";
import { startWork, untilStatus } from "../../../support/work.ts";

const ids = {
  work_id: "0190f5fe-7c00-7a00-8000-000000000001",
  attempt_token: "0190f5fe-7c00-7a00-8000-000000000002",
};
const patience = { timeout: fuzzMs() + 300_000 };
const chunks = process.env.PINION_FUZZ_MINUTES ? 1_000_000 : 100_000;
/** Statuses that the server never ends a stream with: only the peer's mistakes end streams here. */
const ourFaults = new Set<grpc.status>([grpc.status.UNKNOWN, grpc.status.DATA_LOSS]);

// Both ways to serve a device's stream.
describe.each(["bare", "connect"])("device streams served by %s", (kind) => {
  const database = useDatabase({ per: "file" });
  let target: Target;
  beforeAll(async () => {
    target = await startTarget(database.url, {
      PINION_DEVICE_STREAMS: kind,
      PINION_ACCEPT_DEADLINE_MS: "500",
    });
  }, 60_000);
  afterAll(() => target?.stop());

  const hello = () => ({
    installId: target.device.installId,
    os: Os.LINUX,
    agentKinds: ["test"],
    maxConcurrency: 4,
  });
  const frame = (message: ConnectRequest["message"] | { case: string; value: unknown }) => {
    const bytes = toBinary(ConnectRequestSchema, create(ConnectRequestSchema, { message } as never));
    const head = Buffer.alloc(5);
    head.writeUInt32BE(bytes.length, 1);
    return Buffer.concat([head, bytes]);
  };

  test(
    "each kind of message in each state of a session is answered as the table says",
    patience,
    async () => {
      const values: Record<SessionInput, object> = {
        hello: hello(),
        heartbeat: { sequence: 1n },
        accept: { workId: ids.work_id, attemptToken: ids.attempt_token },
        reject: { workId: ids.work_id, attemptToken: ids.attempt_token, reason: 1 },
        output: {
          workId: ids.work_id,
          attemptToken: ids.attempt_token,
          sequence: 1n,
          stream: OutputStream.STDOUT,
          data: new Uint8Array(10),
        },
        complete: { workId: ids.work_id, attemptToken: ids.attempt_token, outcome: 1 },
        cancelled: { workId: ids.work_id, attemptToken: ids.attempt_token },
        activity: {
          workId: ids.work_id,
          attemptToken: ids.attempt_token,
          activities: [{ sequence: 1n, body: { case: "text", value: { text: "Reading." } } }],
        },
        question: {
          workId: ids.work_id,
          attemptToken: ids.attempt_token,
          question: { id: "1", title: "May I?", options: [{ id: "yes", label: "Yes" }] },
        },
        questionClosed: { workId: ids.work_id, attemptToken: ids.attempt_token, questionId: "1", reason: 1 },
        logExcerpt: { requestId: ids.work_id, text: "a line" },
      };
      const send = (stream: ReturnType<typeof dial>, input: SessionInput) =>
        stream.send({ case: input, value: values[input] } as never);
      for (const input of Object.keys(values) as SessionInput[]) {
        const device = await enrolDevice(target.clients);
        values.hello = { ...hello(), installId: device.installId };
        const greeting = dial(target.url, device.token);
        send(greeting, input);
        if (reactions.greeting[input] === "take") await greeting.next("welcome");
        else expect((await greeting.ended).code).toBe(grpc.status.FAILED_PRECONDITION);

        const opening = dial(target.url, device.token);
        send(opening, "hello");
        send(opening, input);
        if (input === "hello") expect((await opening.ended).code).toBe(grpc.status.FAILED_PRECONDITION);
        // The network decides the order of this end and the welcome.
        else await Promise.race([opening.ended, opening.next("welcome")]);
        opening.cancel();

        const serving = await connect(target.url, device);
        send(serving, input);
        if (reactions.serving[input] === "refuse_second_hello") {
          expect((await serving.ended).code).toBe(grpc.status.FAILED_PRECONDITION);
        } else await serving.beat();

        const draining = await connect(target.url, device);
        await target.clients.fleet.disconnectDevice({ deviceId: device.deviceId });
        await draining.next("drain");
        send(draining, input);
        if (reactions.draining[input] === "refuse_second_hello") {
          expect((await draining.ended).code).toBe(grpc.status.FAILED_PRECONDITION);
        } else await draining.beat();
        for (const stream of [greeting, serving, draining]) stream.cancel();
      }
    },
  );

  test(
    "every field of every message at its limits and beyond ends a stream in order, if at all",
    patience,
    async () => {
      const device = await enrolDevice(target.clients);
      const wrong: string[] = [];
      await withstand(target, `${kind}: every field of every message`, async () => {
        for (const member of ConnectRequestSchema.oneofs[0]!.fields) {
          if (member.fieldKind !== "message") continue;
          let stream: DeviceStream = await connect(target.url, device);
          for (const { label, message } of mutationsOf(member.message, ids)) {
            const request = create(ConnectRequestSchema, {
              message: { case: member.localName, value: message },
            } as never);
            try {
              if (toBinary(ConnectRequestSchema, request).length > 4_000_000) continue;
            } catch {
              continue;
            }
            const isHello = member.localName === "hello";
            const isValid = checkMessage(ConnectRequestSchema, request) === undefined;
            if (isHello) {
              stream = dial(target.url, device.token);
            }
            stream.send(request.message as never);
            const ended = await Promise.race([
              stream.ended,
              stream.beat().then(
                () => undefined,
                () => stream.ended,
              ),
            ]);
            if (ended && ourFaults.has(ended.code))
              wrong.push(`${label}: ${grpc.status[ended.code]} ${ended.details}`);
            if (ended && isValid && !isHello)
              wrong.push(`${label}: a good message ended the stream: ${ended.details}`);
            if (ended || isHello) {
              stream.cancel();
              stream = await connect(target.url, device);
            }
          }
          stream.cancel();
        }
      });
      expect(wrong).toEqual([]);
    },
  );

  test("random messages, some of them damaged, in random order", patience, async () => {
    const random = createRandom(seedOfRun(`${kind}: random messages`));
    const member = () => random.pick(ConnectRequestSchema.oneofs[0]!.fields);
    const pool = new Map<string, Uint8Array[]>();
    for (const field of ConnectRequestSchema.oneofs[0]!.fields) {
      if (field.fieldKind !== "message") continue;
      const frames: Uint8Array[] = [];
      for (const { message } of mutationsOf(field.message, ids)) {
        try {
          const bytes = frame({ case: field.localName, value: message });
          if (bytes.length < 20_000) frames.push(bytes);
        } catch {
          // Our own encoder refuses the value.
        }
      }
      pool.set(field.localName, frames);
    }
    await withstand(target, `${kind}: random messages`, async () => {
      const until = performance.now() + fuzzMs(0.25);
      while (performance.now() < until) {
        const connection = await openHttp2(target.port);
        await connection.write(
          http2Frame(frameTypes.headers, {
            flags: flags.endHeaders,
            streamId: 1,
            payload: grpcHeaders("/pinion.v1.DeviceService/Connect", {
              authorization: `Bearer ${target.device.token}`,
            }),
          }),
        );
        const frames = [frame({ case: "hello", value: hello() })];
        for (let count = random.whole(1, 40); count > 0; count -= 1) {
          const bytes = Buffer.from(random.pick(pool.get(member().localName)!));
          if (random.next() < 0.2 && bytes.length > 0)
            bytes[random.whole(0, bytes.length - 1)]! ^= 1 << random.whole(0, 7);
          frames.push(bytes);
        }
        const all = Buffer.concat(frames);
        for (let at = 0; at < all.length && !connection.isClosed(); ) {
          const size = random.whole(1, 8_000);
          await connection.write(
            http2Frame(frameTypes.data, { streamId: 1, payload: all.subarray(at, at + size) }),
          );
          at += size;
        }
        connection.socket.destroy();
      }
    });
  });

  test("a flood of tiny chunks of output; a million with PINION_FUZZ_MINUTES", patience, async () => {
    const device = await enrolDevice(target.clients);
    const stream = await connect(target.url, device);
    await startWork(target.clients, device);
    const assignment = await stream.next("assignment");
    stream.accept(assignment);
    await stream.beat([assignment]);
    await withstand(target, `${kind}: ${chunks} tiny chunks`, async () => {
      const { workId, attemptToken } = assignment;
      for (let sequence = 1; sequence <= chunks; sequence += 1) {
        stream.send({
          case: "output",
          value: {
            workId,
            attemptToken,
            sequence: BigInt(sequence),
            stream: OutputStream.STDOUT,
            data: Uint8Array.of(120),
          },
        });
        // Waiting for the server's answer bounds the memory of the sender.
        if (sequence % 5_000 === 0) await stream.beat([assignment]);
      }
    });
    await stream.complete(assignment);
    await untilStatus(target.clients, assignment, RunStatus.COMPLETED);
  });

  test("a device that never reads is cut, and what waits for it has a bound", patience, async () => {
    const device = await enrolDevice(target.clients);
    await withstand(target, `${kind}: a device that never reads`, async () => {
      const connection = await openHttp2(target.port, { isReading: false });
      connection.socket.pause();
      await connection.write(
        http2Frame(frameTypes.headers, {
          flags: flags.endHeaders,
          streamId: 1,
          payload: grpcHeaders("/pinion.v1.DeviceService/Connect", {
            authorization: `Bearer ${device.token}`,
          }),
        }),
      );
      const greeting = frame({ case: "hello", value: { ...hello(), installId: device.installId } });
      await connection.write(http2Frame(frameTypes.data, { streamId: 1, payload: greeting }));
      await delay(500);
      // Each is answered, and no answer is read.
      const beats = Buffer.concat(
        Array.from({ length: 500 }, () => frame({ case: "heartbeat", value: { sequence: 1n } })),
      );
      for (let count = 0; count < 2_000 && !connection.isClosed(); count += 1) {
        await connection.write(
          http2Frame(frameTypes.data, { streamId: 1, payload: beats.subarray(0, 8_000) }),
        );
      }
      connection.socket.destroy();
    });
  });

  test(
    "a device that is given work and never accepts it holds up nobody else, and the run is offered again",
    patience,
    async () => {
      const device = await enrolDevice(target.clients);
      const stream = await connect(target.url, device, { maxConcurrency: 50 });
      await withstand(target, `${kind}: a device that never accepts`, async () => {
        const runs = [];
        for (let count = 0; count < 50; count += 1) runs.push(await startWork(target.clients, device));
        const seen = new Set<string>();
        while (seen.size < runs.length) seen.add((await stream.next("assignment")).workId);
        // Pushed again, withdrawn, and offered again, without an attempt being counted.
        await stream.next("assignment");
      });
      stream.cancel();
    },
  );
});
