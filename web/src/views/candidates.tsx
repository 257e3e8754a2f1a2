/** The devices that match a watcher's selector at present. */
import type { Watcher } from "#gen/pinion/v1/watcher_pb.js";
import { fleet } from "../data/api.ts";
import { devices as known, labelOf } from "../data/devices.ts";
import { useReading } from "../data/reading.ts";
import { Status } from "../parts/status.tsx";
import { ReadingState } from "../parts/table.tsx";
import { linkTo } from "../route.ts";
import { livenessWord } from "../words.ts";

const shownMax = 12;

export function Candidates({ watcher }: { watcher: Watcher }) {
  const selector = watcher.spec?.selector ?? "";
  const reading = useReading(
    (signal) => fleet.listDevices({ selector, pageSize: 500 }, { signal }),
    [selector],
    ({ kind }) => kind.startsWith("device."),
  );
  const devices = reading.value.value?.devices;
  return (
    <section class="sheet" aria-label="Where it may run">
      <h2>
        Where it may run <small>{devices?.length ?? ""}</small>
      </h2>
      <p>
        <code class="wrapped">{selector}</code>
      </p>
      {!devices ? (
        <ReadingState error={reading.error.value} again={reading.again} />
      ) : devices.length === 0 ? (
        <p class="bad-text">No device matches now; runs wait for one.</p>
      ) : (
        <ul class="versions">
          {devices.slice(0, shownMax).map((device) => (
            <li key={device.id}>
              <a href={linkTo("fleet", device.id)}>
                {known.find(device.id) ? labelOf(device.id) : device.label}
              </a>
              <Status word={livenessWord(device.liveness)} />
            </li>
          ))}
          {devices.length > shownMax && <li class="muted">and {devices.length - shownMax} more</li>}
        </ul>
      )}
    </section>
  );
}
