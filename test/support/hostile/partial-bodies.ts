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
  const { socket } = connection;
  const windows = new Map<number, number>([[0, 65_535]]);
  let initial = 65_535;
  let pending = Buffer.alloc(0);
  let wake = () => {};
  const reset = new Set<number>();
  socket.on("data", (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 9) {
      const length = pending.readUIntBE(0, 3);
      if (pending.length < 9 + length) break;
      read(
        pending.readUInt8(3),
        pending.readUInt8(4),
        pending.readUInt32BE(5),
        pending.subarray(9, 9 + length),
      );
      pending = pending.subarray(9 + length);
    }
    wake();
  });
  function read(type: number, flag: number, streamId: number, payload: Buffer): void {
    if (type === frameTypes.reset) reset.add(streamId);
    if (type === frameTypes.windowUpdate) {
      windows.set(streamId, (windows.get(streamId) ?? initial) + payload.readUInt32BE(0));
    }
    if (type !== frameTypes.settings || (flag & 1) !== 0) return;
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      if (payload.readUInt16BE(at) !== 4) continue;
      const change = payload.readUInt32BE(at + 2) - initial;
      initial += change;
      for (const [id, window] of windows) if (id !== 0) windows.set(id, window + change);
    }
    socket.write(http2Frame(frameTypes.settings, { flags: 1 }));
  }
  const payload = grpcHeaders("/pinion.v1.WatcherService/CreateWatcher", {
    authorization: `Bearer ${options.token}`,
  });
  for (let index = 0; index < options.streams; index += 1) {
    const streamId = 2 * index + 1;
    windows.set(streamId, initial);
    await connection.write(http2Frame(frameTypes.headers, { flags: flags.endHeaders, streamId, payload }));
    const head = Buffer.alloc(5);
    head.writeUInt32BE(4_000_000, 1);
    let isFirst = true;
    for (let left = options.bytes; left > 0 && !connection.isClosed() && !reset.has(streamId); ) {
      const room = Math.min(windows.get(0)!, windows.get(streamId) ?? 0, frameBytes, left);
      if (room <= 5) {
        // The peer's window stays closed, for instance because the peer has cut the stream: the
        // next stream follows.
        const hasNews = await Promise.race([
          new Promise<boolean>((resolve) => {
            wake = () => resolve(true);
          }),
          new Promise<boolean>((resolve) => setTimeout(resolve, 300, false)),
        ]);
        if (!hasNews) break;
        continue;
      }
      const data = Buffer.alloc(room);
      if (isFirst) head.copy(data);
      isFirst = false;
      windows.set(0, windows.get(0)! - room);
      windows.set(streamId, windows.get(streamId)! - room);
      left -= room;
      await connection.write(http2Frame(frameTypes.data, { streamId, payload: data }));
    }
  }
}
