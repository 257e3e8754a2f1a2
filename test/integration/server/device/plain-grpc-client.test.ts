/** A client with only the .proto files and a gRPC library, like a client in another language. */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { expect, onTestFinished, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import { useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

/** Messages as proto-loader makes them: plain objects with the proto's own names. */
type Message = Record<string, unknown> & { message?: string };
type Answer = (error: grpc.ServiceError | null, response: Message) => void;

const loaded = grpc.loadPackageDefinition(
  loadSync("pinion/v1/device.proto", {
    includeDirs: ["proto"],
    keepCase: true,
    longs: String,
    enums: String,
    oneofs: true,
  }),
) as unknown as { pinion: { v1: { DeviceService: grpc.ServiceClientConstructor } } };

function dialService(): grpc.Client & Record<string, (...args: unknown[]) => unknown> {
  const { host } = new URL(replicas.here.url);
  const client = new loaded.pinion.v1.DeviceService(host, grpc.credentials.createInsecure());
  onTestFinished(() => client.close());
  return client as never;
}

function authorization(token: string): grpc.Metadata {
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  return metadata;
}

/** A unary call that resolves with its response. */
function call(
  client: ReturnType<typeof dialService>,
  method: string,
  request: object,
  metadata = new grpc.Metadata(),
) {
  return new Promise<Message>((resolve, reject) => {
    const answer: Answer = (error, response) => (error ? reject(error) : resolve(response));
    client[method]!(request, metadata, answer);
  });
}

test("a client made from the proto alone enrols, holds a session, accepts, beats and completes", async () => {
  const { clients } = replicas.here;
  const service = dialService();
  const { joinCode } = await clients.fleet.createJoinCode({});
  const install_id = randomUUID();
  const enrolled = await call(service, "Enroll", {
    ...{ join_code: joinCode, install_id, os: "OS_LINUX", label: "plain", app_version: "1" },
  });
  expect(enrolled).toMatchObject({ org_id: "local", token: expect.stringMatching(/^pin_dev_/) });

  const metadata = authorization(enrolled.token as string);
  const stream = service.Connect!(metadata) as grpc.ClientDuplexStream<object, Message>;
  onTestFinished(() => stream.cancel());
  stream.on("error", () => {});
  const received = stream[Symbol.asyncIterator]();
  /** Expects the next message to be of this kind. */
  const next = async (kind: string) => {
    const { value } = (await received.next()) as { value: Message };
    expect(value.message).toBe(kind);
    return value[kind] as Message & { work_id: string; attempt_token: string };
  };

  stream.write({
    hello: { install_id, os: "OS_LINUX", agent_kinds: ["sh"], max_concurrency: 1 },
  });
  const welcome = await next("welcome");
  expect(welcome).toMatchObject({
    device_id: enrolled.device_id,
    session_epoch: "1",
    timers: { ttl: { seconds: "60" } },
  });

  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: "Plain", prompt: "be plain", deviceId: enrolled.device_id as string },
  });
  const { run } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  const assignment = await next("assignment");
  expect(assignment).toMatchObject({
    work_id: run!.id,
    attempt: 1,
    kind: "ASSIGNMENT_KIND_WATCHER_RUN",
    watcher: { prompt: "be plain" },
    event: { source: "RUN_SOURCE_MANUAL" },
  });
  const { work_id, attempt_token } = assignment;
  stream.write({ accept: { work_id, attempt_token } });
  stream.write({ heartbeat: { sequence: 1, attempts: [{ work_id, attempt_token }] } });
  expect(await next("heartbeat_ack")).toMatchObject({ sequence: "1" });
  const data = Buffer.from("plain output");
  stream.write({
    output: { work_id, attempt_token, sequence: 1, stream: "OUTPUT_STREAM_STDOUT", data },
  });
  stream.write({
    complete: { work_id, attempt_token, outcome: "OUTCOME_COMPLETED", output: "plain output", exit_code: 0 },
  });
  const ack = await next("completion_ack");
  expect(ack).toMatchObject({ work_id, attempt_token, verdict: "COMPLETION_VERDICT_STORED" });
  const { windows } = await clients.runs.listWindows({ watcherId: watcher!.id });
  expect(windows).toMatchObject([
    { id: ack.window_id, extractedData: { output: "plain output", exit_code: 0 } },
  ]);

  const again = { work_id, attempt_token, outcome: "OUTCOME_COMPLETED", output: "plain output" };
  expect(await call(service, "CompleteRun", { completion: again }, metadata)).toMatchObject({
    verdict: "COMPLETION_VERDICT_ALREADY_STORED",
  });
  stream.end();
  const [status] = (await once(stream, "status")) as [grpc.StatusObject];
  expect(status.code).toBe(grpc.status.OK);
});

test("its errors arrive as gRPC statuses with their details", async () => {
  const service = dialService();
  const used = {
    join_code: "no-such-code",
    install_id: randomUUID(),
    os: "OS_LINUX",
    label: "x",
  };
  await expect(call(service, "Enroll", used)).rejects.toMatchObject({ code: grpc.status.UNAUTHENTICATED });
  const error = (await call(service, "Enroll", { ...used, install_id: "short" }).catch(
    (refused: unknown) => refused,
  )) as grpc.ServiceError;
  expect(error.code).toBe(grpc.status.INVALID_ARGUMENT);
  // grpc-js leaves reserved characters of URIs encoded, here the colon.
  expect(decodeURIComponent(error.details)).toMatch(/^install_id: must be at least 8 bytes/);
  // google.rpc.Status with a BadRequest that names the field.
  const [details] = error.metadata.get("grpc-status-details-bin");
  expect(String(details)).toContain("google.rpc.BadRequest");
  expect(String(details)).toContain("install_id");
});
