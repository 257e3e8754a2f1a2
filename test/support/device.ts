/**
 * A hand-driven device: sends the test's messages and records the received messages, over a plain
 * gRPC channel.
 */
import { randomUUID } from "node:crypto";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import type { createClients } from "@pinion/client";
import { onTestFinished } from "vitest";
import {
  type Assignment,
  type ConnectRequest,
  ConnectRequestSchema,
  type ConnectResponse,
  ConnectResponseSchema,
  DeviceService,
  type HelloSchema,
  Os,
  Outcome,
  type Welcome,
} from "#gen/pinion/v1/device_pb.js";
import { Waiters } from "../../clients/ts/src/device/waiters.ts";

type Clients = ReturnType<typeof createClients>;
type Sent = NonNullable<MessageInitShape<typeof ConnectRequestSchema>["message"]>;
type Case = NonNullable<ConnectResponse["message"]["case"]>;
type ValueOf<C extends Case> = Extract<ConnectResponse["message"], { case: C }>["value"];

/** The time limit of a test's wait for a message, in milliseconds. */
const patienceMs = 15_000;

export type Identity = { deviceId: string; installId: string; token: string; label: string };

/** Enrols a device of the local org, like its owner. */
export async function enrolDevice(
  clients: Clients,
  label = `device-${randomUUID().slice(0, 8)}`,
): Promise<Identity> {
  const { joinCode } = await clients.fleet.createJoinCode({});
  const installId = randomUUID();
  const { deviceId, token } = await clients.device.enroll({
    joinCode,
    installId,
    label,
    os: Os.LINUX,
  });
  return { deviceId, installId, token, label };
}

/**
 * Opens a stream with a device's token, without a hello. The stream is cancelled after the test.
 */
export function dial(url: string, token: string): DeviceStream {
  const stream = new DeviceStream(url, token);
  onTestFinished(() => stream.cancel());
  return stream;
}

/** Opens a stream, sends the hello, and waits for the welcome. */
export async function connect(
  url: string,
  identity: Identity,
  hello: MessageInitShape<typeof HelloSchema> = {},
): Promise<DeviceStream & { welcome: Welcome }> {
  const stream = await connectForFile(url, identity, hello);
  onTestFinished(() => stream.cancel());
  return stream;
}

/** Like {@link connect}, for a stream that serves several tests; the caller cancels the stream. */
export async function connectForFile(
  url: string,
  identity: Identity,
  hello: MessageInitShape<typeof HelloSchema> = {},
): Promise<DeviceStream & { welcome: Welcome }> {
  const stream = new DeviceStream(url, identity.token);
  stream.hello(identity, hello);
  const welcome = await stream.next("welcome");
  return Object.assign(stream, { welcome });
}

export class DeviceStream {
  readonly #client: grpc.Client;
  readonly #call: grpc.ClientDuplexStream<ConnectRequest, ConnectResponse>;
  readonly #received: ConnectResponse[] = [];
  readonly #waiters = new Waiters();
  /** The final status of the stream. */
  readonly ended: Promise<{ code: grpc.status; details: string }>;
  #isEnded = false;
  /** Whether the final status contains a retry delay. */
  hasRetryInfo = false;

  constructor(url: string, token: string) {
    this.#client = new grpc.Client(new URL(url).host, grpc.credentials.createInsecure(), {
      "grpc.max_receive_message_length": -1,
      "grpc.max_send_message_length": -1,
    });
    const metadata = new grpc.Metadata();
    if (token) metadata.set("authorization", `Bearer ${token}`);
    this.#call = this.#client.makeBidiStreamRequest(
      `/${DeviceService.typeName}/Connect`,
      (message: ConnectRequest | Buffer) =>
        Buffer.isBuffer(message) ? message : Buffer.from(toBinary(ConnectRequestSchema, message)),
      (bytes) => fromBinary(ConnectResponseSchema, bytes),
      metadata,
    );
    this.#call.on("data", (message: ConnectResponse) => {
      this.#received.push(message);
      this.#waiters.wake();
    });
    this.ended = new Promise((resolve) => {
      const end = (status: { code: grpc.status; details: string; metadata?: grpc.Metadata }) => {
        this.#isEnded = true;
        const [details] = status.metadata?.get("grpc-status-details-bin") ?? [];
        this.hasRetryInfo = String(details ?? "").includes("google.rpc.RetryInfo");
        this.#waiters.wake();
        // grpc-js decodes all but the characters reserved in URIs, such as ";" and ",".
        resolve({ code: status.code, details: decodeURIComponent(status.details) });
      };
      this.#call.on("error", (error: grpc.ServiceError) => end(error));
      this.#call.on("status", end);
    });
  }

  /** Sends bytes in the place of a message. */
  sendBytes(bytes: Buffer): void {
    this.#call.write(bytes as never);
  }

  send(message: Sent): void {
    this.#call.write(create(ConnectRequestSchema, { message }));
  }

  hello(identity: Identity, hello: MessageInitShape<typeof HelloSchema> = {}): void {
    this.send({
      case: "hello",
      value: {
        installId: identity.installId,
        os: Os.LINUX,
        appVersion: "test",
        agentKinds: ["test"],
        maxConcurrency: 1,
        ...hello,
      },
    });
  }

  /**
   * Takes the next message of a kind; other kinds stay for later. Rejects when the stream ends or
   * after 15 s.
   */
  async next<C extends Case>(kind: C, withinMs = patienceMs): Promise<ValueOf<C>> {
    const deadline = performance.now() + withinMs;
    for (;;) {
      const at = this.#received.findIndex((message) => message.message.case === kind);
      if (at >= 0) return this.#received.splice(at, 1)[0]!.message.value as ValueOf<C>;
      const leftMs = deadline - performance.now();
      if (this.#isEnded)
        throw new Error(`the stream ended without a ${kind}: ${JSON.stringify(await this.ended)}`);
      if (leftMs <= 0) throw new Error(`no ${kind} within ${withinMs} ms`);
      await this.#waiters.wait(leftMs);
    }
  }

  /** The received messages not taken yet, by kind. */
  waiting(kind: Case): ConnectResponse[] {
    return this.#received.filter((message) => message.message.case === kind);
  }

  /**
   * Sends a heartbeat and waits for the answer, so that all earlier messages have been received.
   */
  async beat(attempts: { workId: string; attemptToken: string }[] = [], sequence = 1n): Promise<void> {
    this.send({ case: "heartbeat", value: { sequence, attempts: attempts.map(nameOf) } });
    await this.next("heartbeatAck");
  }

  accept(assignment: Assignment): void {
    this.send({ case: "accept", value: nameOf(assignment) });
  }

  /** Reports a completed attempt; answers the acknowledgement. */
  async complete(
    assignment: { workId: string; attemptToken: string },
    output = "done",
    outcome = Outcome.COMPLETED,
    reason = "",
  ): Promise<ValueOf<"completionAck">> {
    this.send({ case: "complete", value: { ...nameOf(assignment), outcome, output, reason } });
    return this.next("completionAck");
  }

  /**
   * The end of a stream whose message comes before its hello: refused at admission, or because of
   * the message.
   */
  refused(): Promise<{ code: grpc.status; details: string }> {
    this.send({ case: "heartbeat", value: { sequence: 1n } });
    return this.ended;
  }

  /** Ends this side in order. */
  end(): void {
    this.#call.end();
  }

  /** Drops the stream and its connection. */
  cancel(): void {
    this.#call.cancel();
    this.#client.close();
  }
}

function nameOf(attempt: { workId: string; attemptToken: string }) {
  return { workId: attempt.workId, attemptToken: attempt.attemptToken };
}
