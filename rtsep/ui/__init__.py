"""The web panel: a browser is the microphone, the loudspeaker and the controls."""
