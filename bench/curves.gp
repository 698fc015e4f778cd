# Growth curves, logarithmic both ways: marks.tsv: panel, x, y; points.tsv: the fitted line of each panel, in blocks of two.
set border 3
set grid ytics
do for [p = 1:int(N_PANELS)] {
    load "panel.gp"
    set logscale xy
    set format xy "10^{%L}"
    set ytics out nomirror scale 0.5 offset 0.4, 0 textcolor rgb "#4b5563" font "Inter,11"
    plot "points.tsv" using ($1 == p ? $2 : NaN):3 with lines linewidth 1.5 linecolor rgb "#9ca3af", \
         "marks.tsv" using ($1 == p ? $2 : NaN):3 with points pointtype 7 pointsize 0.7 linecolor rgb "#0072b2"
    unset logscale
}
