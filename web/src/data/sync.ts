/** Applies events to the lists, so the page updates without polling. */
import { devices } from "./devices.ts";
import { type Happening, listen, stayLive } from "./live.ts";
import { addEvent, clearLog } from "./log.ts";
import { runs } from "./runs.ts";
import { watchers } from "./watchers.ts";

/** Follows the org's events until the returned function is called, which also clears all lists. */
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
  // Devices and watchers are named in every view, so both are read at the start.
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
    // The device's watchers are unpinned without events of their own.
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
