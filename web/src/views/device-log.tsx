/** The end of a daemon's log, fetched from the device when somebody asks. */
import { useSignal } from "@preact/signals";
import type { Device, GetDeviceLogResponse } from "#gen/pinion/v1/fleet_pb.js";
import { explainError, fleet } from "../data/api.ts";
import { Copy } from "../parts/copy.tsx";

const linesMax = 200;

export function DeviceLog({ device }: { device: Device }) {
  const log = useSignal<GetDeviceLogResponse | undefined>(undefined);
  const error = useSignal("");
  const isBusy = useSignal(false);
  const read = async () => {
    isBusy.value = true;
    try {
      log.value = await fleet.getDeviceLog({ deviceId: device.id, linesMax });
      error.value = "";
    } catch (failure) {
      error.value = explainError(failure);
    }
    isBusy.value = false;
  };
  const found = log.value;
  return (
    <section class="sheet" aria-label="Its daemon's log">
      <h2>
        Its daemon’s log
        <span class="end">
          {found && <Copy text={found.text} what="the log" />}
          <button type="button" disabled={isBusy.value} onClick={read}>
            {isBusy.value ? "Reading…" : found ? "Read again" : "Read"}
          </button>
        </span>
      </h2>
      {error.value && (
        <p class="error" role="alert">
          {error.value}
        </p>
      )}
      {!found && !error.value && (
        <p class="muted">The latest lines come from the device itself, without what programs print.</p>
      )}
      {found && (
        <pre class="log" tabIndex={0}>
          {found.isTruncated && "…\n"}
          {found.text || "nothing yet"}
        </pre>
      )}
    </section>
  );
}
