import { watch } from "node:fs";
import { open } from "node:fs/promises";
import { Bell } from "../../time/abort.ts";

/** Polling interval in ms, for file systems without change events. */
const lookIntervalMs = 200;
const readBytesMax = 64 * 1024;

/**
 * Yields the lines of a growing file from a byte on, until the signal aborts and all lines written
 * by then are yielded. A line without its line feed is not yielded.
 */
export async function* tailLines(
  path: string,
  options: { fromByte: number; signal: AbortSignal },
): AsyncGenerator<string> {
  const bell = new Bell();
  const file = await open(path, "r");
  const watcher = watch(path, () => bell.ring());
  watcher.on("error", () => {});
  const buffer = Buffer.alloc(readBytesMax);
  let position = options.fromByte;
  let rest = Buffer.alloc(0);
  try {
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
      if (bytesRead === 0) {
        if (options.signal.aborted) return;
        await bell.wait(lookIntervalMs, options.signal);
        continue;
      }
      position += bytesRead;
      rest = Buffer.concat([rest, buffer.subarray(0, bytesRead)]);
      for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
        yield rest.toString("utf8", 0, end);
        rest = rest.subarray(end + 1);
      }
    }
  } finally {
    watcher.close();
    await file.close();
  }
}
