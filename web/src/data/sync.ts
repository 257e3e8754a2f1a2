/** What events mean for the lists: who is signed in sees them move, without asking for anything by the clock. */
import { devices } from "./devices.ts";
import { type Happening, listen, stayLive } from "./live.ts";
import { addEvent, clearLog } from "./log.ts";
import { runs } from "./runs.ts";
import { watchers } from "./watchers.ts";

/** Follows the org's events until the returned function is called, which also forgets all that was read. */
export function startSync(): () => void {
  const over = new AbortController();
  const stop = listen({
    onEvent(event) {
      addEvent(event);
      apply(event);
    },
    onGap() {
      for (const collection of [devices, watchers, runs]) collection.resync();
    },
  });
  // Their names are shown everywhere, so both are read at the start, whatever is looked at.
  devices.resync();
  watchers.resync();
  void stayLive(over.signal);
  return () => {
    over.abort();
    stop();
    for (const collection of [devices, watchers, runs]) collection.clear();
    clearLog();
  };
}

function apply(event: Happening): void {
  const { kind, runId, watcherId, deviceId } = event;
  if (runId) runs.touch(runId);
  if (kind === "device.deleted") {
    devices.remove(deviceId);
    // Its watchers are unpinned, which is told by this event alone.
    watchers.resync();
    return;
  }
  if (kind === "watcher.deleted") {
    watchers.remove(watcherId);
    return;
  }
  if (deviceId) devices.touch(deviceId);
  if (watcherId) watchers.touch(watcherId);
}
