import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Health, HealthCheckResponse_ServingStatus as Status } from "#gen/grpc/health/v1/health_pb.js";
import {
  ServerReflection,
  type ServerReflectionRequestSchema,
} from "#gen/grpc/reflection/v1/reflection_pb.js";
import { RunService } from "#gen/pinion/v1/run_pb.js";
import { HealthState, registerHealth } from "../../../../src/server/http/health.ts";
import { openPort, type Port } from "../../../../src/server/http/port/port.ts";
import { registerReflection } from "../../../../src/server/http/reflection.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";

const log = createLogger({ level: "silent", name: "test" });
const state = new HealthState();
let port: Port;

beforeAll(async () => {
  const handler = connectNodeAdapter({
    routes(router) {
      registerReflection(router, [RunService, Health]);
      registerHealth(router, { state, services: [RunService] });
      router.service(RunService, { listRuns: () => ({ nextPageToken: "next" }) });
    },
  });
  port = await openPort({ host: "127.0.0.1", port: 0, log, handler });
  state.setServing(true);
});
afterAll(() => port.close(0));

const bufBinary = join(
  dirname(createRequire(import.meta.url).resolve("@bufbuild/buf/package.json")),
  "bin",
  "buf",
);

/** In a directory without protos, so that buf only knows the server's reflection. */
function bufCurl(...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [bufBinary, "curl", ...args], { cwd: tmpdir() }, (error, stdout, stderr) => {
      if (error) reject(new Error(stderr));
      else resolve(stdout);
    });
  });
}

function client() {
  return createClient(ServerReflection, createGrpcTransport({ baseUrl: port.url }));
}

async function ask(...requests: MessageInitShape<typeof ServerReflectionRequestSchema>["messageRequest"][]) {
  async function* all() {
    for (const messageRequest of requests) yield { messageRequest };
  }
  const answers = [];
  for await (const response of client().serverReflectionInfo(all())) answers.push(response.messageResponse);
  return answers;
}

function fileNames(answer: Awaited<ReturnType<typeof ask>>[number] | undefined): string[] {
  if (answer?.case !== "fileDescriptorResponse") throw new Error(`unexpected ${answer?.case}`);
  return answer.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name);
}

test("buf curl lists the services without being told anything", async () => {
  const listed = await bufCurl("--http2-prior-knowledge", port.url, "--list-services");
  expect(listed.trim().split("\n")).toEqual([
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "pinion.v1.RunService",
  ]);
});

test.each(["connect", "grpc", "grpcweb"])(
  "buf curl calls through %s by reflection alone",
  async (protocol) => {
    const health = await bufCurl(
      ...["--http2-prior-knowledge", "--protocol", protocol, "-d", "{}"],
      `${port.url}/grpc.health.v1.Health/Check`,
    );
    expect(JSON.parse(health)).toEqual({ status: "SERVING" });
  },
);

test("buf curl calls as it stands, without flags, a service whose rules come from other packages", async () => {
  expect(JSON.parse(await bufCurl(`${port.url}/pinion.v1.RunService/ListRuns`))).toEqual({
    nextPageToken: "next",
  });
});

test.each(["grpc-v1", "grpc-v1alpha"])("buf curl finds its way by %s", async (reflectProtocol) => {
  const methods = await bufCurl(
    "--http2-prior-knowledge",
    "--reflect-protocol",
    reflectProtocol,
    port.url,
    "--list-methods",
  );
  expect(methods).toContain("pinion.v1.RunService/WatchRun");
});

test("a symbol is answered with its file and everything that this imports, once", async () => {
  const [run] = await ask({ case: "fileContainingSymbol", value: "pinion.v1.RunService.ListRuns" });
  const names = fileNames(run);
  expect(names[0]).toBe("pinion/v1/run.proto");
  for (const name of [
    "google/protobuf/timestamp.proto",
    "google/protobuf/descriptor.proto",
    "buf/validate/validate.proto",
  ]) {
    expect(names).toContain(name);
  }
  expect(new Set(names).size).toBe(names.length);
});

test("messages, fields, enum values and nested names are all symbols", async () => {
  const symbols = ["pinion.v1.Run", ".pinion.v1.Run.id", "pinion.v1.RUN_STATUS_PENDING"];
  const answers = await ask(...symbols.map((value) => ({ case: "fileContainingSymbol" as const, value })));
  expect(answers.map((answer) => fileNames(answer)[0])).toEqual(symbols.map(() => "pinion/v1/run.proto"));
});

test("files and extensions are found by name and number", async () => {
  const [file, numbers, extension] = await ask(
    { case: "fileByFilename", value: "google/protobuf/duration.proto" },
    { case: "allExtensionNumbersOfType", value: "google.protobuf.FieldOptions" },
    {
      case: "fileContainingExtension",
      value: { containingType: "google.protobuf.FieldOptions", extensionNumber: 1159 },
    },
  );
  expect(fileNames(file)).toEqual(["google/protobuf/duration.proto"]);
  expect(numbers?.value).toMatchObject({
    baseTypeName: "google.protobuf.FieldOptions",
    extensionNumber: expect.arrayContaining([1159]),
  });
  expect(fileNames(extension)[0]).toBe("buf/validate/validate.proto");
});

test("what is unknown is answered as such, and the stream goes on", async () => {
  const answers = await ask(
    { case: "fileByFilename", value: "nowhere.proto" },
    { case: "fileContainingSymbol", value: "no.Such" },
    { case: "fileContainingExtension", value: { containingType: "pinion.v1.Run", extensionNumber: 1 } },
    { case: "allExtensionNumbersOfType", value: "no.Such" },
    { case: "listServices", value: "" },
  );
  expect(answers.map((answer) => answer.case)).toEqual([
    ...["errorResponse", "errorResponse", "errorResponse", "errorResponse"],
    "listServicesResponse",
  ]);
});

test("health is told for the replica and each service, and watchers hear of changes", async () => {
  const health = createClient(Health, createGrpcTransport({ baseUrl: port.url }));
  expect(await health.check({})).toMatchObject({ status: Status.SERVING });
  expect(await health.check({ service: "pinion.v1.RunService" })).toMatchObject({ status: Status.SERVING });
  await expect(health.check({ service: "no.Such" })).rejects.toMatchObject({ code: 5 });
  expect(Object.keys((await health.list({})).statuses)).toContain("pinion.v1.RunService");

  const stop = new AbortController();
  const heard: Status[] = [];
  try {
    for await (const { status } of health.watch({}, { signal: stop.signal })) {
      heard.push(status);
      if (heard.length === 1) state.setServing(false);
      if (heard.length === 2) state.setServing(true);
      if (heard.length === 3) break;
    }
  } finally {
    stop.abort();
    state.setServing(true);
  }
  expect(heard).toEqual([Status.SERVING, Status.NOT_SERVING, Status.SERVING]);
});
