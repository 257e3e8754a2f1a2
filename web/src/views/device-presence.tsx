/** When a device was there: a strip of the last seven days, and its absences as a list. */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Device } from "#gen/pinion/v1/fleet_pb.js";
import { fleet } from "../data/api.ts";
import { now } from "../data/clock.ts";
import { useReading } from "../data/reading.ts";
import { dayMs, lengthText, slotText } from "../times.ts";

const days = 7;
const listedMax = 8;

type Span = { fromMs: number; toMs: number; isOpen: boolean };

export function Presence({ device }: { device: Device }) {
  const reading = useReading(
    async (signal) => (await fleet.getDevice({ deviceId: device.id }, { signal })).device!.absences,
    [device.id, device.sessionEpoch],
  );
  const absences = reading.value.value;
  if (!absences || device.sessionEpoch === 0n) return null;
  const endMs = now.value;
  const spans = [...absences.map(spanOf), ...openSpan(device, endMs)];
  const startMs = Math.max(endMs - days * dayMs, device.createdAt ? timestampMs(device.createdAt) : 0);
  const seen = spans.filter(({ toMs }) => toMs > startMs);
  const awayMs = seen.reduce((sum, { fromMs, toMs }) => sum + toMs - Math.max(fromMs, startMs), 0);
  const wholeMs = Math.max(1, endMs - startMs);
  const part = (ms: number) => `${((100 * ms) / wholeMs).toFixed(3)}%`;
  const latest = seen.toReversed().slice(0, listedMax);
  return (
    <section class="sheet" aria-label="When it was there">
      <h2>
        When it was there <small>{lengthText(wholeMs)}</small>
      </h2>
      <div class="presence" aria-hidden="true">
        {seen.map(({ fromMs, toMs }) => (
          <i
            key={fromMs}
            style={{
              left: part(Math.max(0, fromMs - startMs)),
              width: part(toMs - Math.max(fromMs, startMs)),
            }}
          />
        ))}
      </div>
      {seen.length === 0 ? (
        <p class="muted">It was never away for longer than a heartbeat may take.</p>
      ) : (
        <>
          <p>
            Away for {lengthText(awayMs)},{" "}
            {((100 * awayMs) / wholeMs).toFixed(awayMs / wholeMs < 0.1 ? 1 : 0)} %
          </p>
          <ol class="versions">
            {latest.map(({ fromMs, toMs, isOpen }) => (
              <li key={fromMs}>
                <span>{slotText(fromMs)}</span>
                <small>
                  {isOpen ? "away for " : ""}
                  {lengthText(toMs - fromMs)}
                </small>
              </li>
            ))}
          </ol>
        </>
      )}
    </section>
  );
}

function spanOf({ from, to }: Device["absences"][number]): Span {
  return { fromMs: from ? timestampMs(from) : 0, toMs: to ? timestampMs(to) : 0, isOpen: false };
}

/** The present absence. */
function openSpan({ disconnectedAt, lastBeatAt }: Device, endMs: number): Span[] {
  if (disconnectedAt === undefined) return [];
  return [{ fromMs: timestampMs(lastBeatAt ?? disconnectedAt), toMs: endMs, isOpen: true }];
}
