/**
 * What starts a watcher beside its schedule, and where its results go: chain, hooks, destinations.
 */
import { NotifyWhen } from "#gen/pinion/v1/destination_pb.js";
import type { Watcher } from "#gen/pinion/v1/watcher_pb.js";
import { hooks as api } from "../data/hooks.ts";
import { useReading } from "../data/reading.ts";
import { watchers } from "../data/watchers.ts";
import { linkTo } from "../route.ts";
import { HookTable } from "./hooks.tsx";

const hooksShown = 50;

const whenWords: Record<number, string> = {
  [NotifyWhen.ALWAYS]: "every end",
  [NotifyWhen.FAILURE]: "failures",
  [NotifyWhen.RECOVERY]: "recoveries",
  [NotifyWhen.CHANGE]: "changed results",
  [NotifyWhen.ATTENTION]: "runs to look at",
  [NotifyWhen.QUESTION]: "questions",
};

export function Flow({ watcher }: { watcher: Watcher }) {
  const { spec, slug, id } = watcher;
  const reading = useReading(
    (signal) => api.listHooks({ watcherId: id, pageSize: hooksShown }, { signal }),
    [id],
    ({ kind, watcherId }) => watcherId === id && kind.startsWith("hook."),
  );
  const hooks = reading.value.value?.hooks ?? [];
  const followers = watchers.items.value.filter((one) => one.spec?.after.includes(slug));
  const [after, notify] = [spec?.after ?? [], spec?.notify ?? []];
  if (after.length + notify.length + followers.length + hooks.length === 0) return null;
  return (
    <section class="sheet" aria-label="In and out">
      <h2>In and out</h2>
      <dl>
        {after.length > 0 && (
          <div>
            <dt>starts after</dt>
            <dd>
              <Slugs slugs={after} />{" "}
              {spec?.afterCondition ? <code>{spec.afterCondition}</code> : "when it completed"}
            </dd>
          </div>
        )}
        {followers.length > 0 && (
          <div>
            <dt>its end starts</dt>
            <dd>
              <Slugs slugs={followers.map((one) => one.slug)} />
            </dd>
          </div>
        )}
        {notify.map(({ to, when }) => (
          <div key={`${to} ${when}`}>
            <dt>tells</dt>
            <dd>
              <a href={linkTo("destinations", "", { to })}>{to}</a> of {whenWords[when] ?? "something"}
            </dd>
          </div>
        ))}
      </dl>
      {hooks.length > 0 && <HookTable hooks={hooks} isOfWatcher />}
    </section>
  );
}

function Slugs({ slugs }: { slugs: readonly string[] }) {
  return slugs.map((slug, place) => (
    <>
      {place > 0 && ", "}
      <a href={linkTo("watchers", slug)}>{slug}</a>
    </>
  ));
}
