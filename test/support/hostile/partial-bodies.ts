/**
 * Large bodies on one HTTP/2 connection, each without the last byte. Respects the peer's
 * flow-control windows.
 */
import { flags, frameTypes, grpcHeaders, http2Frame, type RawConnection } from "./http2.ts";

const frameBytes = 16_384;

export async function partialBodies(
  connection: RawConnection,
  options: { token: string; streams: number; bytes: number },
): Promise<void> {
  const windows = new Windows(connection);
  const payload = grpcHeaders("/pinion.v1.WatcherService/CreateWatcher", {
    authorization: `Bearer ${options.token}`,
  });
  for (let index = 0; index < options.streams; index += 1) {
    const streamId = 2 * index + 1;
    windows.open(streamId);
    await connection.write(http2Frame(frameTypes.headers, { flags: flags.endHeaders, streamId, payload }));
    await sendBody(connection, windows, { streamId, bytes: options.bytes });
  }
}

/**
 * Sends a body's bytes while the peer takes them. The peer's window may stay closed, for instance
 * because the peer has cut the stream: the next stream follows.
 */
async function sendBody(
  connection: RawConnection,
  windows: Windows,
  { streamId, bytes }: { streamId: number; bytes: number },
): Promise<void> {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(4_000_000, 1);
  let isFirst = true;
  for (let left = bytes; left > 0 && !connection.isClosed() && !windows.isReset(streamId); ) {
    const room = Math.min(windows.roomOf(streamId), frameBytes, left);
    if (room <= 5) {
      if (!(await windows.hasNews())) return;
      continue;
    }
    const data = Buffer.alloc(room);
    if (isFirst) head.copy(data);
    isFirst = false;
    windows.take(streamId, room);
    left -= room;
    await connection.write(http2Frame(frameTypes.data, { streamId, payload: data }));
  }
}

/** The peer's flow-control windows, of the connection and of each stream, by the peer's frames. */
class Windows {
  readonly #socket: RawConnection["socket"];
  #ofConnection = 65_535;
  readonly #ofStreams = new Map<number, number>();
  #initial = 65_535;
  readonly #reset = new Set<number>();
  #pending = Buffer.alloc(0);
  #wake = () => {};

  constructor({ socket }: RawConnection) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#pending = Buffer.concat([this.#pending, chunk]);
      this.#readFrames();
      this.#wake();
    });
  }

  open(streamId: number): void {
    this.#ofStreams.set(streamId, this.#initial);
  }

  isReset(streamId: number): boolean {
    return this.#reset.has(streamId);
  }

  roomOf(streamId: number): number {
    return Math.min(this.#ofConnection, this.#ofStreams.get(streamId) ?? 0);
  }

  take(streamId: number, bytes: number): void {
    this.#add(0, -bytes);
    this.#add(streamId, -bytes);
  }

  /** Resolves to true with the peer's next bytes, and to false after 300 ms without any. */
  hasNews(): Promise<boolean> {
    return Promise.race([
      new Promise<boolean>((resolve) => {
        this.#wake = () => resolve(true);
      }),
      new Promise<boolean>((resolve) => setTimeout(resolve, 300, false)),
    ]);
  }

  #add(streamId: number, bytes: number): void {
    if (streamId === 0) this.#ofConnection += bytes;
    else this.#ofStreams.set(streamId, (this.#ofStreams.get(streamId) ?? this.#initial) + bytes);
  }

  #readFrames(): void {
    while (this.#pending.length >= 9) {
      const end = 9 + this.#pending.readUIntBE(0, 3);
      if (this.#pending.length < end) return;
      this.#read(this.#pending.subarray(0, end));
      this.#pending = this.#pending.subarray(end);
    }
  }

  #read(frame: Buffer): void {
    const [type, flag, streamId] = [frame.readUInt8(3), frame.readUInt8(4), frame.readUInt32BE(5)];
    const payload = frame.subarray(9);
    if (type === frameTypes.reset) this.#reset.add(streamId);
    if (type === frameTypes.windowUpdate) this.#add(streamId, payload.readUInt32BE(0));
    if (type !== frameTypes.settings || (flag & 1) !== 0) return;
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      if (payload.readUInt16BE(at) !== 4) continue;
      const change = payload.readUInt32BE(at + 2) - this.#initial;
      this.#initial += change;
      for (const streamId of this.#ofStreams.keys()) this.#add(streamId, change);
    }
    this.#socket.write(http2Frame(frameTypes.settings, { flags: 1 }));
  }
}
