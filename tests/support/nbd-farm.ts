/** Servers that come and go as a test tells them to. */
import { NbdClient } from '../../src/nbd/client/client.ts';
import { bytes, clientOptions, type FakeExport, FakeServer, hostWith, refuseConnection } from './nbd-client.ts';

/** The payload of a chunk that says: zeroes here. */
export function zeroes(offset: number, length: number): Uint8Array {
  return bytes(12, (view) => {
    view.setBigUint64(0, BigInt(offset));
    view.setUint32(8, length);
  });
}

/** Fake servers, one for each connection that is made; `up` says whether one can be made. */
export class Farm {
  readonly servers: FakeServer[] = [];
  readonly times: number[] = [];
  up = true;
  next: FakeExport;
  readonly host = hostWith(async () => {
    this.times.push(this.host.clock.now());
    if (!this.up) refuseConnection();
    const server = new FakeServer(this.next);
    this.servers.push(server);
    void server.shake().catch(() => {});
    return server.clientEnd;
  });

  constructor(exported: FakeExport = {}) {
    this.next = exported;
  }

  client(options: Parameters<typeof clientOptions>[1] = {}): Promise<NbdClient> {
    return NbdClient.open(clientOptions(this.host, options));
  }

  at(index: number): FakeServer {
    const server = this.servers[index];
    if (server === undefined) throw new TypeError(`no connection ${index}`);
    return server;
  }
}
