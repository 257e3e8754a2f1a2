/** Search over names, ids and words of results. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { runs } from "../data/api.ts";
import { devices, labelOf } from "../data/devices.ts";
import { useReading } from "../data/reading.ts";
import { watchers } from "../data/watchers.ts";
import { withoutMarkup } from "../data/windows.ts";
import { Empty } from "../parts/empty.tsx";
import { FilterBox } from "../parts/filter.tsx";
import { Status } from "../parts/status.tsx";
import { ReadingState } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { linkTo, route, setQuery } from "../route.ts";
import { livenessWord, runWord, watcherWord } from "../words.ts";

const askAfterMs = 350;
const namedMax = 12;
const charactersMin = 2;

export function SearchView() {
  const text = (route.value.query.get("q") ?? "").trim();
  const asked = useSignal(text);
  useEffect(() => {
    const timer = setTimeout(() => {
      asked.value = text;
    }, askAfterMs);
    return () => clearTimeout(timer);
  }, [text]);
  const query = asked.value;
  const reading = useReading(
    async (signal) => (query.length < charactersMin ? undefined : runs.searchRuns({ query }, { signal })),
    [query],
  );
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const has = (of: string) => words.length > 0 && words.every((word) => of.toLowerCase().includes(word));
  const namedWatchers = watchers.items.value
    .filter(({ slug, id, spec }) => has(`${slug} ${id} ${spec?.name} ${spec?.prompt}`))
    .slice(0, namedMax);
  const namedDevices = devices.items.value
    .filter(({ label, id, hostName }) => has(`${label} ${id} ${hostName}`))
    .slice(0, namedMax);
  const found = reading.value.value;
  const isNothing =
    namedWatchers.length + namedDevices.length === 0 && found !== undefined && found.hits.length === 0;
  return (
    <>
      <div class="tools">
        <h1 class="unseen">Search</h1>
        <FilterBox
          value={route.value.query.get("q") ?? ""}
          hint="A name, an id, words of a result"
          onInput={(q) => setQuery({ q })}
        />
        {found && (
          <span class="muted">
            looked through the newest {found.resultsSearched.toLocaleString("en")} results
          </span>
        )}
      </div>
      {text.length < charactersMin ? (
        <Empty title="Look for anything">
          <p>
            Watchers and devices by name, runs by the beginning or end of their id, results by their words:
            “build failed” finds both words, "quoted words" as they stand, and -word without it.
          </p>
        </Empty>
      ) : (
        <>
          {namedWatchers.length > 0 && (
            <section class="sheet" aria-label="Watchers">
              <h2>Watchers</h2>
              <ul class="versions">
                {namedWatchers.map((watcher) => (
                  <li key={watcher.id}>
                    <a href={linkTo("watchers", watcher.slug)}>{watcher.spec?.name || watcher.slug}</a>
                    <Status word={watcherWord(watcher.status)} />
                  </li>
                ))}
              </ul>
            </section>
          )}
          {namedDevices.length > 0 && (
            <section class="sheet" aria-label="Devices">
              <h2>Devices</h2>
              <ul class="versions">
                {namedDevices.map((device) => (
                  <li key={device.id}>
                    <a href={linkTo("fleet", device.id)}>{labelOf(device.id)}</a>
                    <Status word={livenessWord(device.liveness)} />
                  </li>
                ))}
              </ul>
            </section>
          )}
          {found === undefined ? (
            <ReadingState error={reading.error.value} again={reading.again} />
          ) : (
            found.hits.length > 0 && (
              <section class="sheet" aria-label="Runs">
                <h2>Runs</h2>
                <ul class="needs">
                  {found.hits.map(({ run, excerpt }) =>
                    run ? (
                      <li key={run.id}>
                        <Status word={runWord(run.status)} />
                        <span>
                          <a href={linkTo("runs", run.id)}>
                            <b>{run.watcherSlug || run.id}</b>
                          </a>{" "}
                          <code>{run.id.slice(-8)}</code>{" "}
                          <small>
                            <Ago at={run.finishedAt ?? run.dueAt} />
                          </small>
                          {excerpt && <Excerpt text={withoutMarkup(excerpt)} words={words} />}
                        </span>
                      </li>
                    ) : null,
                  )}
                </ul>
              </section>
            )
          )}
          {isNothing && <Empty title="Nothing was found" />}
        </>
      )}
    </>
  );
}

/** A piece of a result with the searched words marked. */
function Excerpt({ text, words }: { text: string; words: readonly string[] }) {
  const wanted = words.map((word) => word.replace(/[^\p{L}\p{N}]/gu, "")).filter(Boolean);
  const pieces = wanted.length > 0 ? text.split(new RegExp(`(${wanted.join("|")})`, "giu")) : [text];
  return (
    <div class="muted">
      {pieces.map((piece, index) => (index % 2 === 1 ? <mark key={index}>{piece}</mark> : piece))}
    </div>
  );
}
