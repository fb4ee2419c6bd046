/** What a server publishes through its host; on Node channels of `diagnostics_channel`. */
import type { Host } from '../../core/host.ts';

/** What a server publishes through its host, by channel. */
export interface NbdServerEvents {
  /** A client was greeted. */
  readonly 'diskwright:nbd:connect': NbdConnectionEvent;
  /** It has reached transmission. */
  readonly 'diskwright:nbd:export': NbdConnectionEvent & { readonly export: string };
  readonly 'diskwright:nbd:disconnect': NbdConnectionEvent & {
    readonly export: string | undefined;
    readonly requests: number;
    readonly bytesRead: number;
    readonly bytesWritten: number;
    readonly errors: number;
    /** Why it was cut off; undefined: it just left. */
    readonly reason: string | undefined;
  };
}

interface NbdConnectionEvent {
  /** Counted from 1. */
  readonly connection: number;
  readonly peer: string;
}

export function emit<C extends keyof NbdServerEvents>(host: Host, channel: C, message: NbdServerEvents[C]): void {
  if (host.watched(channel)) host.publish(channel, message);
}
