/**
 * A fleet of idle devices, in a separate process: each device holds its stream and beats. Prints
 * the latency of each answered beat in milliseconds, and each ended stream, one per line.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import {
  type ConnectRequest,
  ConnectRequestSchema,
  ConnectResponseSchema,
  DeviceService,
  Os,
} from "#gen/pinion/v1/device_pb.js";

const { host, devices, beatMs } = JSON.parse(await text(process.stdin)) as {
  host: string;
  devices: { installId: string; token: string }[];
  beatMs: number;
};
const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);

async function text(stream: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

let welcomed = 0;
for (const [index, { installId, token }] of devices.entries()) {
  const client = new grpc.Client(host, grpc.credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  const call = client.makeBidiStreamRequest(
    `/${DeviceService.typeName}/Connect`,
    (message: ConnectRequest) => Buffer.from(toBinary(ConnectRequestSchema, message)),
    (bytes) => fromBinary(ConnectResponseSchema, bytes),
    metadata,
  );
  const send = (message: ConnectRequest["message"]) => call.write(create(ConnectRequestSchema, { message }));
  let sequence = 0n;
  let beatAt = 0;
  call.on("data", ({ message }: { message: { case?: string } }) => {
    if (message.case === "welcome") {
      welcomed += 1;
      if (welcomed === devices.length) say({ isReady: true });
      setTimeout(
        () =>
          setInterval(() => {
            beatAt = performance.now();
            sequence += 1n;
            send({ case: "heartbeat", value: { sequence } as never });
          }, beatMs),
        (index / devices.length) * beatMs,
      );
    }
    if (message.case === "heartbeatAck" && beatAt > 0) say({ ms: performance.now() - beatAt });
  });
  call.on("error", (error: grpc.ServiceError) => say({ problem: error.message }));
  send({
    case: "hello",
    value: { installId, os: Os.LINUX, agentKinds: ["test"], maxConcurrency: 1 } as never,
  });
}
