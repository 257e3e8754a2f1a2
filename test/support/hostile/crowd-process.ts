/**
 * A crowd without a token, in a separate process: keeps `connections` connections open from many
 * addresses, half of them idle and half with incomplete `Enroll` streams. Reopens closed
 * connections, until the wanted number of streams was begun. Prints its counts every second.
 */
import { connect, type Socket } from "node:net";
import { flags, frameTypes, greeting, grpcHeaders, http2Frame } from "./http2.ts";

const options = JSON.parse(process.argv[2]!) as {
  port: number;
  connections: number;
  streams: number;
  bodyBytes: number;
  addresses: number;
  network: number;
};
const streamsPerConnection = 100;
/**
 * Maximum number of connections being opened at once: more would only wait in the system's queue.
 */
const connectingMax = 50;

const headers = grpcHeaders("/pinion.v1.DeviceService/Enroll");
/** A message whose stated length exceeds its bytes. */
const part = Buffer.alloc(options.bodyBytes);
part.writeUInt32BE(60_000, 1);
const streams = Buffer.concat(
  Array.from({ length: streamsPerConnection }, (_, index) => {
    const streamId = 2 * index + 1;
    const begun = http2Frame(frameTypes.headers, { flags: flags.endHeaders, streamId, payload: headers });
    return Buffer.concat([begun, http2Frame(frameTypes.data, { streamId, payload: part })]);
  }),
);

let open = 0;
let connecting = 0;
let made = 0;
let closed = 0;
let begun = 0;
let failed = 0;

function add(): void {
  const hasStreams = made % 2 === 0;
  const localAddress = `127.0.${options.network}.${2 + (made % options.addresses)}`;
  made += 1;
  open += 1;
  connecting += 1;
  let isUp = false;
  const socket: Socket = connect({ port: options.port, host: "127.0.0.1", localAddress });
  socket.on("error", () => {});
  socket.on("data", () => {});
  socket.once("connect", () => {
    isUp = true;
    connecting -= 1;
    if (!hasStreams) return;
    begun += streamsPerConnection;
    socket.write(Buffer.concat([greeting, http2Frame(frameTypes.settings), streams]));
  });
  socket.once("close", () => {
    if (!isUp) connecting -= 1;
    if (isUp) closed += 1;
    else failed += 1;
    open -= 1;
  });
}

const started = performance.now();
setInterval(() => {
  while (open < options.connections && connecting < connectingMax && begun < options.streams) add();
}, 5);
setInterval(() => {
  const seconds = Math.round((performance.now() - started) / 1_000);
  const isDone = begun >= options.streams;
  process.stdout.write(`${JSON.stringify({ seconds, open, made, closed, begun, failed, isDone })}\n`);
}, 1_000);
