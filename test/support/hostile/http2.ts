/** HTTP/2 frames written by hand, so that they can be invalid. */
import { connect, type Socket } from "node:net";

export const frameTypes = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const flags = { endStream: 1, endHeaders: 4, padded: 8, priority: 32 } as const;

export const greeting = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

export function http2Frame(
  type: number,
  options: { flags?: number; streamId?: number; payload?: Uint8Array; length?: number } = {},
): Buffer {
  const payload = options.payload ?? Buffer.alloc(0);
  const head = Buffer.alloc(9);
  head.writeUIntBE((options.length ?? payload.length) & 0xffffff, 0, 3);
  head.writeUInt8(type & 0xff, 3);
  head.writeUInt8((options.flags ?? 0) & 0xff, 4);
  head.writeUInt32BE((options.streamId ?? 0) >>> 0, 5);
  return Buffer.concat([head, payload]);
}

/** A header field for HPACK without tables: a literal without indexing. */
export function literal(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.from([0x00]), hpackText(name), hpackText(value)]);
}

function hpackText(text: string): Buffer {
  const bytes = Buffer.from(text);
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const length: number[] = [127];
  let rest = bytes.length - 127;
  while (rest >= 128) {
    length.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  length.push(rest);
  return Buffer.concat([Buffer.from(length), bytes]);
}

/** The header block of a gRPC call. */
export function grpcHeaders(path: string, more: Record<string, string> = {}): Buffer {
  const fields = {
    ":method": "POST",
    ":scheme": "http",
    ":path": path,
    ":authority": "localhost",
    "content-type": "application/grpc",
    te: "trailers",
    ...more,
  };
  return Buffer.concat(Object.entries(fields).map(([name, value]) => literal(name, value)));
}

export type RawConnection = {
  socket: Socket;
  /**
   * Writes, and waits until the system has taken the bytes, the peer has hung up, or a moment has
   * passed.
   */
  write(bytes: Uint8Array): Promise<void>;
  /** Resolves when the peer has hung up. */
  closed: Promise<void>;
  isClosed(): boolean;
  receivedBytes(): number;
};

const writeMs = 2_000;

/**
 * A connection that reads and discards all input. Never rejects: the peer's reaction is the result.
 */
export async function openRaw(port: number, { isReading = true } = {}): Promise<RawConnection> {
  const socket = connect(port, "127.0.0.1");
  let isClosed = false;
  let received = 0;
  socket.on("error", () => {});
  if (isReading) {
    socket.on("data", (data) => {
      received += data.length;
    });
  }
  const closed = new Promise<void>((resolve) => {
    socket.once("close", () => {
      isClosed = true;
      resolve();
    });
  });
  await new Promise<void>((resolve) => {
    socket.once("connect", () => resolve());
    socket.once("close", () => resolve());
  });
  return {
    socket,
    closed,
    isClosed: () => isClosed,
    receivedBytes: () => received,
    async write(bytes) {
      if (isClosed || socket.destroyed) return;
      let timer: NodeJS.Timeout | undefined;
      await Promise.race([
        new Promise<void>((resolve) => socket.write(bytes, () => resolve())),
        closed,
        new Promise<void>((resolve) => {
          timer = setTimeout(resolve, writeMs);
        }),
      ]);
      clearTimeout(timer);
    },
  };
}

/** A connection after the preface of HTTP/2. */
export async function openHttp2(port: number, options: { isReading?: boolean } = {}): Promise<RawConnection> {
  const connection = await openRaw(port, options);
  await connection.write(Buffer.concat([greeting, http2Frame(frameTypes.settings)]));
  return connection;
}
