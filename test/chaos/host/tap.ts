/**
 * Records every message of every device of this process, between client and transport: the
 * functions of grpc-js that encode and decode are wrapped, and the client is unchanged.
 */
import { createHash } from "node:crypto";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import {
  type CompleteRunRequest,
  type CompleteRunResponse,
  type Completion,
  CompletionVerdict,
  type ConnectRequest,
  type ConnectResponse,
  HeldAttemptState,
  HeldVerdict,
  Outcome,
} from "#gen/pinion/v1/device_pb.js";
import type * as history from "../history.ts";

type Names = { workId: string; attemptToken: string };
type Serialize<T> = (message: T) => Buffer;
type Deserialize<T> = (bytes: Buffer) => T;

const nameOf = ({ workId, attemptToken }: Names): history.AttemptName => ({
  run: workId,
  token: attemptToken,
});

export function digestOf(text: string): history.Digest {
  return { sha256: createHash("sha256").update(text, "utf8").digest("hex"), characters: [...text].length };
}

/** The transport's methods, as far as they are wrapped. */
type Transport = {
  makeBidiStreamRequest: (...args: unknown[]) => unknown;
  makeUnaryRequest: (...args: unknown[]) => unknown;
};

/** The device of a call, and a number for its stream. */
type Naming = (metadata: grpc.Metadata) => { device: string; stream: string };

/** Wraps the transport. `deviceOf`: the device of a token. */
export function tapTransport(record: history.Record, deviceOf: (token: string) => string): void {
  const transport = grpc.Client.prototype as unknown as Transport;
  let streams = 0;
  const naming: Naming = (metadata) => {
    streams += 1;
    const token = String(metadata.get("authorization")[0] ?? "").replace(/^Bearer /, "");
    return { device: deviceOf(token), stream: `${process.pid}-${streams}` };
  };
  tapStreams(transport, record, naming);
  tapCompletions(transport, record, naming);
}

function tapStreams(transport: Transport, record: history.Record, naming: Naming): void {
  const { makeBidiStreamRequest } = transport;
  transport.makeBidiStreamRequest = function (...args: unknown[]) {
    const [path, serialize, deserialize, metadata, ...rest] = args as [
      string,
      Serialize<ConnectRequest>,
      Deserialize<ConnectResponse>,
      grpc.Metadata,
      ...unknown[],
    ];
    const names = naming(metadata);
    const sending: Serialize<ConnectRequest> = (message) => {
      const sent = sentOf(message);
      if (sent) record({ kind: "sent", ...names, message: sent });
      return serialize(message);
    };
    const seeing: Deserialize<ConnectResponse> = (bytes) => {
      const message = deserialize(bytes);
      const seen = seenOf(message);
      if (seen) record({ kind: "seen", ...names, message: seen });
      return message;
    };
    return makeBidiStreamRequest.call(this, path, sending, seeing, metadata, ...rest);
  };
}

function tapCompletions(transport: Transport, record: history.Record, naming: Naming): void {
  const { makeUnaryRequest } = transport;
  transport.makeUnaryRequest = function (...args: unknown[]) {
    const [path, serialize, deserialize, request, metadata, ...rest] = args as [
      string,
      Serialize<CompleteRunRequest>,
      Deserialize<CompleteRunResponse>,
      CompleteRunRequest,
      grpc.Metadata,
      ...unknown[],
    ];
    if (!path.endsWith("/CompleteRun")) return makeUnaryRequest.apply(this, args);
    const names = naming(metadata);
    const completion = request.completion!;
    const sending: Serialize<CompleteRunRequest> = (message) => {
      record({ kind: "sent", ...names, message: completeOf(completion, true) });
      return serialize(message);
    };
    const seeing: Deserialize<CompleteRunResponse> = (bytes) => {
      const answer = deserialize(bytes);
      record({ kind: "seen", ...names, message: ackOf({ ...nameOf(completion), ...answer }, true) });
      return answer;
    };
    return makeUnaryRequest.call(this, path, sending, seeing, request, metadata, ...rest);
  };
}

function sentOf({ message }: ConnectRequest): history.SentMessage | undefined {
  switch (message.case) {
    case "hello":
      return {
        case: "hello",
        held: message.value.held.map((held) => ({
          ...nameOf(held),
          state: held.state === HeldAttemptState.FINISHED ? "finished" : "running",
        })),
      };
    case "heartbeat":
      return { case: "heartbeat", attempts: message.value.attempts.length };
    case "accept":
      return { case: "accept", ...nameOf(message.value) };
    case "reject":
      return { case: "reject", reason: message.value.reason, ...nameOf(message.value) };
    case "output":
      return { case: "output", bytes: message.value.data.length, ...nameOf(message.value) };
    case "complete":
      return completeOf(message.value, false);
    case "cancelled":
      return { case: "cancelled", ...nameOf(message.value) };
    case undefined:
      return undefined;
  }
}

function seenOf({ message }: ConnectResponse): history.SeenMessage | undefined {
  switch (message.case) {
    case "welcome":
      return {
        case: "welcome",
        deviceId: message.value.deviceId,
        epoch: Number(message.value.sessionEpoch),
        verdicts: message.value.verdicts.map((held) => ({
          ...nameOf(held),
          verdict: heldVerdicts[held.verdict],
        })),
      };
    case "heartbeatAck":
      return { case: "heartbeatAck" };
    case "assignment": {
      const { watcher, context, attempt, event } = message.value;
      return {
        case: "assignment",
        ...nameOf(message.value),
        attempt,
        watcher: watcher?.id ?? "",
        deviceId: context?.deviceId ?? "",
        prompt: watcher?.prompt ?? "",
        slot: event?.scheduledFor ? timestampMs(event.scheduledFor) : null,
      };
    }
    case "cancel":
      return { case: "cancel", reason: message.value.reason, ...nameOf(message.value) };
    case "completionAck":
      return ackOf({ ...nameOf(message.value), ...message.value }, false);
    case "drain":
      return { case: "drain", reason: message.value.reason };
    case undefined:
      return undefined;
  }
}

function completeOf(completion: Completion, isUnary: boolean): history.SentMessage {
  return {
    case: "complete",
    ...nameOf(completion),
    outcome: outcomes[completion.outcome],
    output: digestOf(completion.output),
    isUnary,
  };
}

function ackOf(
  ack: history.AttemptName & { verdict: CompletionVerdict; windowId: string },
  isUnary: boolean,
): history.SeenMessage {
  const { run, token, windowId } = ack;
  return { case: "completionAck", run, token, verdict: verdicts[ack.verdict], windowId, isUnary };
}

const outcomes: Record<Outcome, history.Outcome> = {
  [Outcome.UNSPECIFIED]: "failed",
  [Outcome.COMPLETED]: "completed",
  [Outcome.FAILED]: "failed",
  [Outcome.TIMEOUT]: "timeout",
  [Outcome.CANCELLED]: "cancelled",
};

const verdicts: Record<CompletionVerdict, history.Verdict> = {
  [CompletionVerdict.UNSPECIFIED]: "unknown",
  [CompletionVerdict.STORED]: "stored",
  [CompletionVerdict.STORED_LATE]: "stored_late",
  [CompletionVerdict.ALREADY_STORED]: "already_stored",
  [CompletionVerdict.SUPERSEDED]: "superseded",
  [CompletionVerdict.UNKNOWN]: "unknown",
  [CompletionVerdict.INVALID]: "invalid",
};

const heldVerdicts: Record<HeldVerdict, history.HeldVerdict> = {
  [HeldVerdict.UNSPECIFIED]: "abort",
  [HeldVerdict.CONTINUE]: "continue",
  [HeldVerdict.ABORT]: "abort",
  [HeldVerdict.SEND_RESULT]: "send_result",
  [HeldVerdict.ALREADY_STORED]: "already_stored",
};
