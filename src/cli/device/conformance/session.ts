import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, timestampNow } from "@bufbuild/protobuf/wkt";
import type { Code } from "@connectrpc/connect";
import { ConnectError } from "@connectrpc/connect";
import {
  type Assignment,
  type Completion,
  type CompletionVerdict,
  type ConnectRequest,
  ConnectRequestSchema,
  ConnectResponseSchema,
  type DrainReason,
  type Hello,
  type Welcome,
} from "#gen/pinion/v1/device_pb.js";
import { checkMessage } from "../../../server/access/interceptors/validate.ts";
import { type OpenLink, openLink } from "../../../server/device/stream/link.ts";
import { Wrong } from "./verdict.ts";

export type Names = { workId: string; attemptToken: string };
type Case = NonNullable<ConnectRequest["message"]["case"]>;
type ValueOf<C extends Case> = Extract<ConnectRequest["message"], { case: C }>["value"];
type Sent = NonNullable<MessageInitShape<typeof ConnectResponseSchema>["message"]>;

/** Functions and data of the server used by a stream. */
export type SessionHost = {
  readonly script: { welcomes: boolean; answersHeartbeats: boolean; acknowledges: boolean };
  readonly patienceMs: number;
  /** Violations of the protocol, in words. */
  readonly broken: string[];
  welcomeFor(hello: Hello): Welcome;
  store(completion: Completion): CompletionVerdict;
};

/** A stream of the daemon, as seen by the scripted server. */
export class ScriptedSession {
  /** All received messages, in order, with the time by the monotonic clock. */
  readonly received: { message: ConnectRequest["message"]; at: number }[] = [];
  readonly closed: Promise<void>;
  readonly #server: SessionHost;
  readonly #link: OpenLink;
  readonly #taken = new Set<object>();
  readonly #waiters = new Set<() => void>();
  #settleClosed!: () => void;
  isClosed = false;
  isWelcomed = false;
  hello!: Hello;

  constructor(server: SessionHost, signal: AbortSignal) {
    this.#server = server;
    this.closed = new Promise((resolve) => {
      this.#settleClosed = resolve;
    });
    this.#link = openLink({ signal, onOverflow: () => this.#over() });
    signal.addEventListener("abort", () => this.#over(), { once: true });
    if (signal.aborted) this.#over();
  }

  messages() {
    return this.#link.messages();
  }

  /** Reads the daemon's side to its end. */
  async read(requests: AsyncIterable<ConnectRequest>, onHello: () => void): Promise<void> {
    try {
      for await (const request of requests) this.#take(request, onHello);
      this.end();
    } catch {
      // The way a daemon leaves is not checked here.
    } finally {
      this.#over();
    }
  }

  #take(request: ConnectRequest, onHello: () => void): void {
    const { message } = request;
    if (message.case === undefined) {
      this.#server.broken.push("a ConnectRequest without a message");
      return;
    }
    const violation = checkMessage(ConnectRequestSchema, request);
    if (violation) this.#server.broken.push(`${message.case} breaks a rule: ${violation.message}`);
    if (message.case === "hello" && this.received.length === 0) {
      this.hello = message.value;
      this.#note(message);
      onHello();
      if (this.#server.script.welcomes) this.welcome();
      return;
    }
    if (!this.isWelcomed) this.#server.broken.push(`${message.case} before the hello was answered`);
    if (message.case === "hello") this.#server.broken.push("a second hello on one stream");
    this.#note(message);
    if (message.case === "heartbeat" && this.#server.script.answersHeartbeats) {
      const { sequence } = message.value;
      this.send({ case: "heartbeatAck", value: { sequence, serverTime: timestampNow() } });
    }
    if (message.case === "complete") {
      const verdict = this.#server.store(message.value);
      if (this.#server.script.acknowledges) this.acknowledge(message.value, verdict);
    }
  }

  #note(message: ConnectRequest["message"]): void {
    this.received.push({ message, at: performance.now() });
    for (const wake of [...this.#waiters]) wake();
  }

  #over(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#settleClosed();
    for (const wake of [...this.#waiters]) wake();
  }

  /** Takes the next message of a kind; a missing message is a failure of the daemon. */
  async next<C extends Case>(
    kind: C,
    what: string,
    options: { of?: Names; withinMs?: number } = {},
  ): Promise<ValueOf<C>> {
    const withinMs = options.withinMs ?? this.#server.patienceMs;
    const deadline = performance.now() + withinMs;
    for (;;) {
      const found = this.received.find(
        ({ message }) =>
          message.case === kind &&
          !this.#taken.has(message.value) &&
          (!options.of || (message.value as ValueOf<"accept">).attemptToken === options.of.attemptToken),
      );
      if (found) {
        this.#taken.add(found.message.value as object);
        return found.message.value as ValueOf<C>;
      }
      const leftMs = deadline - performance.now();
      if (this.isClosed) throw new Wrong(what, `the stream ended first; ${this.#summary()}`);
      if (leftMs <= 0) throw new Wrong(what, `nothing of that within ${withinMs} ms; ${this.#summary()}`);
      await new Promise<void>((resolve) => {
        const wake = () => {
          clearTimeout(timer);
          this.#waiters.delete(wake);
          resolve();
        };
        const timer = setTimeout(wake, leftMs).unref();
        this.#waiters.add(wake);
      });
    }
  }

  all<C extends Case>(kind: C, of?: Names): ValueOf<C>[] {
    return this.received.flatMap(({ message }) => {
      if (message.case !== kind) return [];
      const value = message.value as ValueOf<C>;
      return !of || (value as ValueOf<"accept">).attemptToken === of.attemptToken ? [value] : [];
    });
  }

  /** Waits for `count` further heartbeats, so all earlier messages of the daemon have arrived. */
  async beats(count: number): Promise<ValueOf<"heartbeat">> {
    for (const old of this.all("heartbeat")) this.#taken.add(old);
    let last!: ValueOf<"heartbeat">;
    for (let beat = 0; beat < count; beat++) last = await this.next("heartbeat", "heartbeats go on");
    return last;
  }

  send(message: Sent): void {
    this.#link.send(create(ConnectResponseSchema, { message }));
  }

  /** Sends a message of a kind unknown to the daemon. */
  sendUnknown(): void {
    // Field 1000, three bytes: a newer server's message as seen by an older client.
    const $unknown = [{ no: 1000, wireType: 2, data: new Uint8Array([3, 1, 2, 3]) }];
    this.#link.send({ ...create(ConnectResponseSchema), $unknown });
  }

  welcome(): void {
    this.isWelcomed = true;
    this.send({ case: "welcome", value: this.#server.welcomeFor(this.hello) });
  }

  push(assignment: Assignment): void {
    this.send({ case: "assignment", value: assignment });
  }

  cancel({ workId, attemptToken }: Names): void {
    this.send({ case: "cancel", value: { workId, attemptToken, reason: "conformance" } });
  }

  acknowledge({ workId, attemptToken }: Names, verdict: CompletionVerdict): void {
    this.send({ case: "completionAck", value: { workId, attemptToken, verdict } });
  }

  drain(reason: DrainReason, afterMs: number): void {
    this.send({ case: "drain", value: { reason, reconnectAfter: durationFromMs(afterMs) } });
  }

  /** Ends the stream from the server's side, normally or with a status. */
  end(code?: Code): void {
    this.#link.end(code === undefined ? undefined : new ConnectError("conformance", code));
  }

  #summary(): string {
    const kinds = this.received.map(({ message }) => message.case).filter((kind) => kind !== "heartbeat");
    return `came so far: ${kinds.length === 0 ? "nothing" : kinds.slice(-8).join(", ")} and ${this.all("heartbeat").length} heartbeats`;
  }
}
