import { useLayoutEffect, useRef } from "preact/hooks";
import type { Run } from "#gen/pinion/v1/run_pb.js";
import { isEnded, type RunStream } from "../../data/run-stream.ts";
import { Ansi } from "../../parts/ansi.tsx";
import { bytesText } from "../../parts/timeline.tsx";

/**
 * The program's output, live; after the end the stored output. Follows the end while scrolled to
 * the end.
 */
export function OutputPane({ stream, run }: { stream: RunStream; run: Run }) {
  const output = stream.output.value;
  const stored = stream.stored.value;
  const omitted = stream.omittedBytes.value;
  const box = useRef<HTMLPreElement>(null);
  const isAtEnd = useRef(true);
  useLayoutEffect(() => {
    if (box.current && isAtEnd.current && stored === undefined)
      box.current.scrollTop = box.current.scrollHeight;
  }, [output, stored]);
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current!;
    isAtEnd.current = scrollHeight - scrollTop - clientHeight < 24;
  };
  const isLive = !isEnded(run);
  const showsLive = stored === undefined || (stored === "" && output.pieces.length > 0);
  const isBlank = showsLive ? output.pieces.length === 0 : stored === "";
  return (
    <section class="output" aria-label="Output">
      <h2>
        Output{" "}
        <small>
          {isLive ? "live" : run.windowId ? "as stored" : "the end that was kept"}
          {!showsLive && omitted > 0 && ` · ${bytesText(omitted)} are missing in the middle`}
          {showsLive && output.bytes > 0 && ` · ${bytesText(output.bytes)}`}
          {showsLive && output.missed > 0 && ` · ${output.missed} pieces were not seen live`}
        </small>
      </h2>
      <pre
        ref={box}
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label="Output of the program"
        onScroll={onScroll}
      >
        {isBlank ? (
          <span class="muted">{isLive ? "Nothing written yet." : "It wrote nothing that was kept."}</span>
        ) : showsLive ? (
          <Live output={output} />
        ) : (
          <Ansi text={stored} />
        )}
      </pre>
      {!showsLive && run.stderrTail !== "" && (
        <details>
          <summary>Standard error, its end</summary>
          <pre tabIndex={0}>
            <Ansi text={run.stderrTail} />
          </pre>
        </details>
      )}
    </section>
  );
}

function Live({ output }: { output: RunStream["output"]["value"] }) {
  return (
    <>
      {output.isCut && <span class="muted">… what came before is in the stored result{"\n"}</span>}
      {output.pieces.map((piece, index) => (
        <span key={index} class={piece.isError ? "stderr" : ""}>
          <Ansi text={piece.text} isAfterReturn={output.pieces[index - 1]?.text.endsWith("\r")} />
        </span>
      ))}
    </>
  );
}
