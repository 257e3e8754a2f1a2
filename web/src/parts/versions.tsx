import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Signal } from "@preact/signals";
import { Ago } from "./time.tsx";

/** The versions of a thing; a click shows a version, and a second click hides the version again. */
export function VersionList({
  revisions,
  shown,
}: {
  revisions: readonly { version: number; createdAt?: Timestamp | undefined }[];
  shown: Signal<number | undefined>;
}) {
  return (
    <ol class="versions">
      {revisions.map(({ version, createdAt }) => (
        <li key={version}>
          <button
            type="button"
            class="quiet"
            aria-pressed={shown.value === version}
            onClick={() => {
              shown.value = shown.value === version ? undefined : version;
            }}
          >
            version {version}
          </button>
          <small>
            <Ago at={createdAt} />
          </small>
        </li>
      ))}
    </ol>
  );
}
