/**
 * A driver of one's own: disks in Blobs, such as a file that somebody dropped on a web page. Registered with the
 * others, it serves them: the VDI driver below finds it by the name `blob:…`.
 */
import { BlockError, defineProtocol, option, type ProtocolSpec } from 'diskwright';

/** Opens `blob:NAME` from `blobs`. Read-only. */
export function blobProtocol(blobs: ReadonlyMap<string, Blob>): ProtocolSpec<{ filename: string }> {
  return defineProtocol({
    name: 'blob',
    summary: 'Reads a Blob',
    options: {
      filename: option.text({ help: 'name of the blob', fallback: '' }),
    },
    needsFilename: true,
    parseFilename: (name) => ({ filename: name.replace(/^blob:/, '') }),

    async open({ options, writable }) {
      const blob = blobs.get(options.filename);
      if (blob === undefined) throw new BlockError('ENOENT', `No blob named '${options.filename}'`);
      if (writable) throw new BlockError('EACCES', 'Blobs are read-only');
      return {
        length: () => blob.size,
        async read(offset, target) {
          const slice = blob.slice(offset, offset + target.length);
          target.set(new Uint8Array(await slice.arrayBuffer()));
        },
      };
    },
  });
}
