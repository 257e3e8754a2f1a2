import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Run } from "#gen/pinion/v1/run_pb.js";
import { type Watcher, WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";
import { watchers as api, runs } from "../data/api.ts";
import { useReading } from "../data/reading.ts";
import { linkTo } from "../route.ts";
import { slotText } from "../times.ts";
import { runWord, skipWord, toneOf } from "../words.ts";

const slotsShown = 120;
const slotsToCome = 20;
/** Up to this many slots a day, the days stand in columns. */
const sparseSlotsMax = 4;

type Cell = { key: string; tone: string; text: string; link?: string };

/** A cell for each slot, past and coming. */
export function Slots({ watcher }: { watcher: Watcher }) {
  const past = useReading(
    (signal) => runs.listRuns({ watcherId: watcher.id, pageSize: slotsShown }, { signal }),
    [watcher.id],
    (event) => event.watcherId === watcher.id && event.kind.startsWith("run."),
  );
  const coming = useReading(
    async (signal) =>
      watcher.spec?.schedule && watcher.status === WatcherStatus.ACTIVE
        ? (await api.previewSchedule({ watcherId: watcher.id, count: slotsToCome }, { signal })).slots
        : [],
    [watcher.id, watcher.version, watcher.status],
  );
  const found = past.value.value?.runs;
  if (!found) return null;
  const cells: Cell[] = [
    ...found.toReversed().map(cellOf),
    ...(coming.value.value ?? []).map((slot) => {
      const at = timestampMs(slot);
      return { key: String(at), tone: "coming", text: `${slotText(at)}: to come` };
    }),
  ];
  const days = Map.groupBy(cells, ({ text }) => text.replace(/ \d\d:\d\d.*$/, ""));
  const isSparse = [...days.values()].every((slots) => slots.length <= sparseSlotsMax);
  return (
    <section class="sheet" aria-label="Slots">
      <h2>
        Slots{" "}
        <small>
          the last {found.length}, and what is to come ·{" "}
          <a href={linkTo("runs", "", { watcher: watcher.id })}>all its runs</a>
        </small>
      </h2>
      <ol class={`calendar ${isSparse ? "sparse" : ""}`} tabIndex={0} aria-label="Slots by day">
        {[...days].map(([day, slots]) => (
          <li key={day}>
            <span>{day}</span>
            <div>
              {slots.map(({ key, tone, text, link }) =>
                link ? (
                  <a key={key} class={`cell ${tone}`} href={link} title={text}>
                    <span class="unseen">{text}</span>
                  </a>
                ) : (
                  <i key={key} class={`cell ${tone}`} role="img" title={text} aria-label={text} />
                ),
              )}
            </div>
          </li>
        ))}
      </ol>
    </section>
  );
}

function cellOf(run: Run): Cell {
  const at = timestampMs(run.scheduledFor ?? run.dueAt!);
  const why = [runWord(run.status), skipWord(run.skipReason)].filter(Boolean).join(", ");
  return {
    key: run.id,
    tone: toneOf(runWord(run.status)),
    text: `${slotText(at)}: ${why}`,
    link: linkTo("runs", run.id),
  };
}
